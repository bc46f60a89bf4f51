"""Making model files that run without torch (needs the extra `export`).

checkpoint → trace → quantise → wrap → save → compare with the checkpoint.
"""

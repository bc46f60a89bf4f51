"""Making model files that run without torch (needs torch and onnx: `pip install 'edgefuse[export]'`).

checkpoint → trace → quantise → wrap → save → compare with the checkpoint.
"""

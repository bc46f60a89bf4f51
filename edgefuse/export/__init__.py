"""Making model files that run without torch (needs torch and onnx: `pip install 'edgefuse[export]'`).

checkpoint → fold → ONNX with its spec → fp16 → compare with the checkpoint.
"""

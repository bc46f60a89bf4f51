"""Optional packages: whether one is installed, and what to type where it is not."""

from importlib.util import find_spec

from edgefuse.errors import BackendError

__all__ = ["INSTALL_HINTS", "is_installed", "require"]

INSTALL_HINTS = {
    "cpu": "pip install onnxruntime",
    "gpu": "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "train": "pip install torch safetensors matplotlib",
    "export": "pip install torch safetensors onnx onnxscript",
    "tensorrt": "pip install tensorrt cuda-python",
    "openvino": "pip install openvino",
}
"""What brings the packages of each extra, by its name in pyproject.toml."""


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ValueError:  # what find_spec says of one that is blocked in sys.modules
        return False


def require(extra: str, *packages: str) -> None:
    """Raise `BackendError` with the extra's install command if one of the packages is not installed."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise BackendError(f"{', '.join(missing)} is not installed: {INSTALL_HINTS[extra]}")

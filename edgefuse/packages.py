"""Optional packages: whether one is installed, and what to type where it is not."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from edgefuse.errors import BackendError

INSTALL_HINTS = {
    "cpu": "pip install onnxruntime",
    "gpu": "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "train": "pip install torch safetensors matplotlib",
    "export": "pip install torch safetensors onnx onnxscript",
    "tensorrt": "pip install tensorrt-cu13 'cuda-python>=13,<14' (CUDA 12: see docs/tensorrt.md)",
    "openvino": "pip install openvino",
    "ray": "pip install 'ray[data]'",
    "serve": "pip install starlette uvicorn prometheus-client",
}
"""What brings the packages of each extra, by its name in pyproject.toml."""

REINSTALL = "install it again: pip install --force-reinstall {}"
LIBRARIES = {
    "cv2": (
        "OpenCV",
        "pip install opencv-python, and what it needs (Debian: apt install libgl1 libglib2.0-0), "
        "or take the build without windows: "
        "pip uninstall opencv-python && pip install opencv-python-headless",
    ),
    "av": ("PyAV", REINSTALL.format("av")),
    "numpy": ("NumPy", REINSTALL.format("numpy")),
    "PIL": ("Pillow", REINSTALL.format("pillow")),
    "simplejpeg": ("simplejpeg", REINSTALL.format("simplejpeg")),
    "onnxruntime": ("ONNX Runtime", REINSTALL.format("onnxruntime")),
    "openvino": ("OpenVINO", REINSTALL.format("openvino")),
    "tensorrt": ("TensorRT", REINSTALL.format("tensorrt")),
    "torch": ("PyTorch", REINSTALL.format("torch")),
}
"""Packages with libraries of their own: name, and what helps where one cannot be loaded."""

NOT_INSTALLED = {
    "cv2": "pip install opencv-python, or opencv-python-headless on a machine without a display",
    "torch": INSTALL_HINTS["train"],
    "tensorrt": INSTALL_HINTS["tensorrt"],
    "PIL": "pip install pillow",
}
"""What to type for packages whose name is not that of their module, or that want others beside them."""


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


def stay_offline() -> None:
    """Switch off what engines report to their makers; to be called before one is imported.

    ONNX Runtime's builds resolve a host every few seconds and keep a device id in the home folder; OpenVINO
    reports to an analytics service. Both stay on if the user says so: `ORT_DISABLE_TELEMETRY=0`, or
    `opt_in_out --opt_in` of OpenVINO.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    consent = Path.home() / "intel" / "openvino_telemetry"
    if not (consent.is_file() and consent.read_text("utf-8", "replace").startswith("1")):
        # OpenVINO does without this package where it is not installed, which None here amounts to.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

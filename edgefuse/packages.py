"""Other packages: whether an optional one is installed, and registries to which any package adds.

A package that brings a metric has in its pyproject.toml

    [project.entry-points."edgefuse.metrics"]
    Sharpness = "my_package:SHARPNESS"

and `METRICS["Sharpness"]` is there wherever edgefuse looks for metrics by name. Entry points are read when a
registry is first listed, or asked for a name that it does not have itself; so importing edgefuse runs nobody
else's code.
"""

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from edgefuse.errors import BackendError, EdgefuseError, InputError, unknown_name

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


logger = logging.getLogger(__name__)
T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A mapping from name to thing that reads the entry points of its group when first needed.

    Args:
        kind: what its things are called in errors, such as `metric`.
        group: entry-point group, such as `edgefuse.metrics`.
        own: what edgefuse itself has; an entry point of the same name is ignored with a warning.
        error: what `named` raises.
    """

    def __init__(
        self, kind: str, group: str, own: Mapping[str, T], error: type[EdgefuseError] = InputError
    ) -> None:
        self.kind = kind
        self.group = group
        self._error = error
        self._items = dict(own)
        self._loaded = False

    def named(self, name: str) -> T:
        """Return what has that name, in upper or lower case; else raise an error that lists the names."""
        if name in self:
            return self[name]
        for known in self:
            if known.lower() == name.lower():
                return self[known]
        raise self._error(unknown_name(self.kind, name, self))

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            self._load()
        return self._items[name]

    def __setitem__(self, name: str, value: T) -> None:
        self._items[name] = value

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._items)

    def __len__(self) -> int:
        self._load()
        return len(self._items)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for point in entry_points(group=self.group):
            if point.name in self._items:
                logger.warning(
                    "the %s %s of %s is ignored: the name is taken", self.kind, point.name, point.value
                )
                continue
            try:
                self._items[point.name] = point.load()
            except Exception as error:  # any package's fault must not take edgefuse down
                logger.warning(
                    "the %s %s cannot be loaded from %s: %s", self.kind, point.name, point.value, error
                )


def load_file(text: str) -> tuple[str, Any] | None:
    """Return the name and the thing that `FILE.py:NAME` stands for; None for a text of another form.

    The file is run, so the text must come from the user, never out of a checkpoint.

    Raises:
        InputError: no such file or name, or the file fails.
    """
    file, _, name = text.rpartition(":")
    if not file.endswith(".py"):
        return None
    path = Path(file)
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever is in the user's file
        raise InputError(f"{path} cannot be used: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        names = [each for each in vars(module) if not each.startswith("_")]
        raise InputError(f"{path}: {unknown_name('name', name, names)}")
    return name, getattr(module, name)

"""A class and one entry: that is all it takes to add a source or an output."""

import threading
import time

import cv2
import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.images import LOGGING, quiet_opencv
from edgefuse.runtime.cameras.camera import connect
from edgefuse.runtime.frames import Frame, FusedFrame, Role
from edgefuse.runtime.live import run
from edgefuse.runtime.sinks import SINKS, OutputOptions, Sink, open_output
from edgefuse.runtime.sources import SOURCES, Source
from edgefuse.runtime.sources.base import Spec


class Stripes(Source):
    texts = "stripes"
    live, fps, length = False, 10.0, 3

    @staticmethod
    def accepts(target: str) -> bool:
        return target == "stripes"

    def __init__(self, spec: Spec, role: Role) -> None:
        self.name, self.value = spec.name, spec.read_options({"value": int}).get("value", 7)
        self.next = 0

    def read(self) -> Frame | None:
        if self.next == self.length:
            return None
        self.next += 1
        image = np.full((48, 64), self.value, np.uint8)
        return Frame(image, self.next - 1, (self.next - 1) / self.fps, time.monotonic())

    def close(self) -> None:
        pass


class Brightness(Sink):
    texts = "brightness:NAME"
    options = frozenset[str]()
    in_main_thread = False
    written: "dict[str, list[int]]" = {}  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def accepts(out: str) -> bool:
        return out.startswith("brightness:")

    @classmethod
    def open(cls, out: str, options: OutputOptions) -> "Brightness":
        return cls(out.removeprefix("brightness:"))

    def write(self, frame: FusedFrame) -> None:
        self.written.setdefault(self.name, []).append(int(frame.fused.mean()))

    def close(self) -> None:
        pass


def test_a_source_and_an_output_are_a_class_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "stripes", Stripes)
    monkeypatch.setitem(SINKS, "brightness", Brightness)
    with connect("stripes", "ir") as ir, connect("stripes?value=9", "vis") as vis:
        with pytest.raises(InputError, match=r"segment is not for brightness:a \(brightness\)"):
            open_output("brightness:a", OutputOptions(segment=2.0))
        run(ir, vis, lambda ir, vis: ir + vis, [open_output("brightness:a", OutputOptions())])
    assert Brightness.written == {"a": [16, 16, 16]}
    with pytest.raises(InputError, match=r"known outputs are .*brightness:NAME"):
        open_output("a.xyz", OutputOptions())


@pytest.mark.skipif(LOGGING is None, reason="this OpenCV has no log level to ask for")
def test_opencv_is_quiet_only_meanwhile() -> None:
    before = cv2.utils.logging.getLogLevel()
    inside = threading.Event()
    leave = threading.Event()

    def other() -> None:
        with quiet_opencv():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quiet_opencv():
        thread.start()
        assert inside.wait(10)
    assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT, (
        "the other is still in there"
    )
    leave.set()
    thread.join()
    assert cv2.utils.logging.getLogLevel() == before

import os
import threading
from typing import Any

import cv2
import pytest

from edgefuse.errors import InputError
from edgefuse.runtime.sinks import (
    Callback,
    SinkWriter,
    Window,
)
from edgefuse.runtime.sinks.base import Deadline
from edgefuse.runtime.timing import StageTimes
from tests.support.shots import shot


@pytest.mark.skipif(os.name != "posix", reason="displays are named by the environment on Linux only")
@pytest.mark.parametrize("display", [None, ":99"])
def test_a_missing_display_gets_one_sentence(display: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(InputError, match=r"no display|no window can be opened"):
        Window(lambda: None)


class FakeScreen:
    """What OpenCV's windows do, without a screen: none can be had where tests run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[Any] = []
        self.sizes: list[tuple[int, int]] = []
        self.key, self.visible, self.opened = -1, 1.0, False
        self.threads: set[threading.Thread] = set()
        monkeypatch.setattr("edgefuse.runtime.sinks.pictures.check_display", lambda: None)
        for name in ("namedWindow", "resizeWindow", "imshow", "waitKey", "destroyAllWindows"):
            monkeypatch.setattr(cv2, name, getattr(self, name))
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)

    def namedWindow(self, *_: object) -> None:  # noqa: N802
        self.opened = True

    def destroyAllWindows(self) -> None:  # noqa: N802
        self.opened = False

    def resizeWindow(self, _: str, width: int, height: int) -> None:  # noqa: N802
        self.sizes.append((width, height))

    def imshow(self, _: str, image: Any) -> None:
        self.threads.add(threading.current_thread())
        self.shown.append(image)

    def waitKey(self, _: int) -> int:  # noqa: N802
        return self.key


@pytest.mark.parametrize("triptych", [False, True])
def test_a_window_shows_every_frame_in_the_main_thread(
    monkeypatch: pytest.MonkeyPatch, triptych: bool
) -> None:
    screen, closed = FakeScreen(monkeypatch), []
    writer = SinkWriter(Window(lambda: closed.append(1), triptych), StageTimes(), lambda: True)
    writer.start()
    writer.sink.idle()
    assert len(screen.sizes) == 0, "nothing is known of the size before the first picture"
    for n in range(3):
        writer.put(shot(n, (2000, 1200)))
    assert [image.shape for image in screen.shown] == [(1200, 6000 if triptych else 2000, 3)] * 3
    assert screen.sizes == [(1600, 900)]
    assert screen.threads == {threading.main_thread()}
    assert (len(closed), screen.opened) == (0, True)
    writer.finish(Deadline(5))
    assert (len(closed), screen.opened) == (0, False)
    assert (writer.written, writer.dropped, writer.error) == (3, 0, None)


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (27, 1.0), (-1, 0.0)])
def test_q_escape_or_the_cross_end_the_stream(
    monkeypatch: pytest.MonkeyPatch, key: int, visible: float
) -> None:
    screen, closed = FakeScreen(monkeypatch), []
    with Window(lambda: closed.append(1)) as window:
        window.write(shot())
        assert len(closed) == 0
        screen.key, screen.visible = key, visible
        window.idle()
        assert len(closed) == 1, "also while no frames come"


def test_a_window_that_fails_leaves_the_others_running(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeScreen(monkeypatch)

    def broken(*_: object) -> None:
        raise cv2.error("the display is gone")

    monkeypatch.setattr(cv2, "imshow", broken)
    seen: list[int] = []
    sinks = [Window(lambda: None), Callback(lambda frame: seen.append(frame.index))]
    writers = [SinkWriter(sink, StageTimes(), lambda: True) for sink in sinks]
    for writer in writers:
        writer.start()
    for n in range(5):
        for writer in writers:
            writer.put(shot(n))
    for writer in writers:
        writer.finish(Deadline(5))
    assert seen == list(range(5))
    assert (writers[0].written, writers[0].dropped) == (0, 5)
    assert writers[0].error == "window: the display is gone"

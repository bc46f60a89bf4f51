"""OpenCV without its own messages."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

LOGGING: Any = getattr(cv2.utils, "logging", None)  # which OpenCV 4.6 lacks, as Debian 12 has it
LOCK = threading.Lock()
state = {"users": 0, "level": 0}


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing meanwhile: a failure is ours to report, in one sentence.

    Its level is one for the whole process: threads may be in here at once, and the last one out restores it.
    """
    if LOGGING is None:
        yield
        return
    with LOCK:
        if not state["users"]:
            state["level"] = LOGGING.getLogLevel()
            LOGGING.setLogLevel(LOGGING.LOG_LEVEL_SILENT)
        state["users"] += 1
    try:
        yield
    finally:
        with LOCK:
            state["users"] -= 1
            if not state["users"]:
                LOGGING.setLogLevel(state["level"])

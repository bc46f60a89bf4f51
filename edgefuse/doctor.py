"""What of this machine works for edgefuse, and what to do about the rest. One small function a check.

Libraries are imported inside the checks: one that cannot be loaded is a finding, not the end.
"""

import ctypes
import logging
import math
import os
import platform
import queue
import re
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from edgefuse.doctor_hardware import DEVICES, Finding, accelerators, kernel, ok, usb, virtual
from edgefuse.errors import EdgefuseError, first_line
from edgefuse.packages import INSTALL_HINTS, LIBRARIES, stay_offline

if TYPE_CHECKING:
    from edgefuse.runtime.cameras.camera import Camera

LEAST_PYTHON, NEXT_PYTHON = (3, 10), (3, 15)
LEAST_FREE = 1e9  # bytes on the disk
OLDEST_CLOCK = 1_735_689_600  # 2025-01-01, before this was written
SELF_TEST_SECONDS = 3.0  # from the first picture on, if all goes well by then
MOST_SELF_TEST_SECONDS = 12.0
ENOUGH = 5  # frames fused after the camera came back
CHECK_SECONDS, MOST_SECONDS = 20.0, 30.0  # for one check, and for all of them
FAMILIES = (
    r"onnxruntime(-gpu|-openvino|-directml|-rocm|-migraphx|-qnn)?",
    r"opencv(-contrib)?-python(-headless)?",
)
"""Names of packages of which only one may be installed."""
SLOW = 0.9  # share of the camera's frames, below which the machine counts as too slow


def python() -> Iterator[Finding]:
    """Python's version, and where it runs."""
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < LEAST_PYTHON:
        yield Finding("problem", text, "Use Python 3.10 or newer.")
    elif sys.version_info >= NEXT_PYTHON:
        yield Finding("warning", f"{text}, which is newer than what was tested", "Use Python 3.14 or older.")
    else:
        yield ok(text)


def wheels() -> Iterator[Finding]:
    """Packages that overwrite each other's files, and the CUDA they are for."""
    installed = _installed()
    for family in FAMILIES:
        found = sorted(name for name in installed if re.fullmatch(family, name))
        text = ", ".join(f"{name} {installed[name]}" for name in found)
        if len(found) > 1:
            fix = f"pip uninstall -y {' '.join(found)}, then install the one that you need."
            yield Finding("problem", f"{text} overwrite each other's files", fix)
        elif found:
            yield ok(text)
    if "onnxruntime-gpu" in installed:
        yield _cuda_majors(installed)


def _cuda_majors(installed: dict[str, str]) -> Finding:
    """Compare the CUDA that ONNX Runtime was built for with the one that pip installed."""
    stay_offline()
    from onnxruntime.capi import build_and_package_info

    built = str(getattr(build_and_package_info, "cuda_version", "")).partition(".")[0]
    majors = {found[1] for name in installed if (found := re.fullmatch(r"nvidia-.+-cu(\d+)", name))}
    if "nvidia-cublas" in installed:  # from CUDA 13 on, the name has no major
        majors.add(installed["nvidia-cublas"].partition(".")[0])
    text = f"onnxruntime-gpu is built for CUDA {built or 'of an unknown version'}"
    if built and majors and built not in majors:
        fix = f"{INSTALL_HINTS['gpu']}."
        return Finding("problem", f"{text}, the CUDA packages here are of {', '.join(sorted(majors))}", fix)
    return ok(text)


def _installed() -> dict[str, str]:
    """Return name → version of the installed packages."""
    found = ((each.metadata["Name"], each.version) for each in distributions())
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found if name}


def opencv() -> Iterator[Finding]:
    """Whether OpenCV finds the libraries of the system that it needs."""
    try:
        import cv2
    except ImportError as error:
        yield Finding("problem", f"OpenCV cannot be loaded: {error}", f"{LIBRARIES['cv2'][1]}.")
    else:
        yield ok(f"OpenCV {cv2.__version__} loads")


def engines() -> Iterator[Finding]:
    """Which engines really run the default model."""
    import numpy as np

    from edgefuse.runtime.engines import ENGINES
    from edgefuse.runtime.engines.fuser import Fuser

    image, usable = np.zeros((64, 64), np.uint8), 0
    for name, kind in ENGINES.items():
        if (missing := kind.missing()) is not None:
            yield ok(f"{name}: not used, {missing}")
            continue
        try:  # without building anything for minutes
            with Fuser(engine=name, rebuild=False) as fuser:
                fuser(image, image)
                usable += 1
                yield ok(f"{name}: runs, {fuser.engine.device}")
        except EdgefuseError as error:
            fix = "Fix it if you need it; else use another --engine."
            yield Finding("warning", f"{name}: {error}", fix)
    if not usable:
        yield Finding("problem", "no engine runs the default model", f"{INSTALL_HINTS['cpu']}.")


QUERYCAP, ENUM_FMT = 0x80685600, 0xC0405602  # VIDIOC_…, linux/videodev2.h
CAPTURES, CAPTURE_TYPE = 0x1, 1  # V4L2_CAP_VIDEO_CAPTURE, V4L2_BUF_TYPE_VIDEO_CAPTURE
MOST_FORMATS = 32


def cameras() -> Iterator[Finding]:
    """Cameras of this machine, with their formats, and whether this user may read them."""
    devices = sorted(DEVICES.glob("video*"), key=lambda path: (len(path.name), path.name))
    found = 0
    for device in devices:
        if not os.access(device, os.R_OK | os.W_OK):
            fix = "sudo usermod -aG video $USER, then log in again."
            yield Finding("problem", f"{device}: no permission for this user", fix)
            found += 1
            continue
        try:
            camera = _describe_camera(device)
        except OSError as error:
            fix = "End the program that uses it, or plug it in again."
            yield Finding("warning", f"{device}: does not answer ({error.strerror})", fix)
            found += 1
            continue
        if camera is not None:  # else it gives metadata, or takes pictures
            found += 1
            yield ok(f"cam{device.name.removeprefix('video')}: {camera}")
    if not found:
        fix = "Plug in a camera, or use a network camera, a recording or sim."
        yield Finding("warning", "no camera is attached", fix)


def _describe_camera(device: Path) -> str | None:
    """Return a camera's name and formats, by V4L2; None: it gives no pictures."""
    import fcntl

    handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        about = bytearray(104)  # struct v4l2_capability
        fcntl.ioctl(handle, QUERYCAP, about)
        if not struct.unpack_from("I", about, 88)[0] & CAPTURES:
            return None
        formats = []
        for index in range(MOST_FORMATS):
            entry = bytearray(64)  # struct v4l2_fmtdesc
            struct.pack_into("II", entry, 0, index, CAPTURE_TYPE)
            try:
                fcntl.ioctl(handle, ENUM_FMT, entry)
            except OSError:  # after the last one
                break
            formats.append(bytes(entry[44:48]).decode("ascii", "replace").rstrip(" \0"))
    finally:
        os.close(handle)
    name = bytes(about[16:48]).split(b"\0")[0].decode("utf-8", "replace")
    return f"{name}, formats {', '.join(formats) or 'unknown'}"


def display() -> Iterator[Finding]:
    """Whether a window can be shown."""
    from edgefuse.runtime.sinks.pictures import check_display

    try:
        check_display()
    except EdgefuseError as error:
        yield Finding("warning", f"--show: {error}", "Look at the stream in a browser: --serve 8080.")
    else:
        yield ok("a window can be shown")


def codecs() -> Iterator[Finding]:
    """Whether PyAV can write what outputs need."""
    import av

    from edgefuse.runtime.sinks.video import CODECS

    missing = []
    for name, codec in CODECS.items():
        try:
            av.Codec(codec.encoder, "w")
        except ValueError:  # av.codec.codec.UnknownCodecError is one
            missing.append(name)
    if missing:
        text = f"PyAV {av.__version__} cannot write {', '.join(missing)}"
        yield Finding("problem" if "h264" in missing else "warning", text, f"{LIBRARIES['av'][1]}.")
    else:
        yield ok(f"PyAV {av.__version__} writes {', '.join(CODECS)}")


def disk() -> Iterator[Finding]:
    """Whether the current folder and the cache can be written, and how much room there is."""
    from edgefuse.runtime.engines.engine_cache import cache_folder, writable_folder

    here = Path.cwd()
    try:
        tempfile.TemporaryFile(dir=here).close()
    except OSError as error:
        text = f"{here} cannot be written: {error.strerror}"
        yield Finding("warning", text, "Run it in another folder.")
    else:
        free = shutil.disk_usage(here).free
        text = f"{free / 1e9:.1f} GB free in {here}"
        fix = "Make room, or limit recordings by --max-size."
        yield ok(text) if free > LEAST_FREE else Finding("warning", text, fix)
    try:
        yield ok(f"cache: {writable_folder(cache_folder())}")
    except EdgefuseError as error:
        yield Finding("warning", str(error), "Set EDGEFUSE_CACHE to a folder that you may write to.")


UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)


def clock() -> Iterator[Finding]:
    """Whether the clock is set, which recordings and logs are named by."""
    text = f"the clock says {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
    fix = "sudo timedatectl set-ntp true."
    if time.time() < OLDEST_CLOCK:
        yield Finding("problem", f"{text}, which lies in the past", fix)
    elif _clock_state() == UNSYNCHRONISED:
        yield Finding("warning", f"{text}; it is not synchronised", fix)
    else:
        yield ok(text)


def _clock_state() -> int:
    """Return the kernel's word on its clock; 0 where it has none."""
    if not sys.platform.startswith("linux"):
        return 0
    return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))  # of a zeroed struct: reads only


SMALL = "sim?size=160x128"
UNPLUGGED = 0.3, 0.15
"""When the visible camera of the self-test is unplugged, from its first frame on, and for how long, as
shares of the test's time."""


def self_test() -> Iterator[Finding]:
    """Fuse two small simulated cameras for a moment, one of which is unplugged and plugged in again."""
    from edgefuse import live

    after, begun = 0, math.inf
    with _quiet(), live(SMALL, _unreliable_camera(), duration=MOST_SELF_TEST_SECONDS) as run:
        for pair in run:
            begun = min(begun, time.monotonic())
            after += pair.state == "fused" and run.report().sources[1].reconnects > 0
            if after >= ENOUGH and time.monotonic() > begun + SELF_TEST_SECONDS:
                break
        report = run.report()
    visible = report.sources[1]
    total = report.stages["total"].p50 if report.frames else 0.0
    text = f"{report.frames} simulated frames fused, {1000 * total:.0f} ms from camera to picture"
    again = "End other programs and try again; if it stays, report it with this line."
    back = f"{text}; a camera that was unplugged came back, {after} frames fused after that"
    if not report.frames:
        yield Finding("problem", "no frame of two simulated cameras was fused", "See the findings above.")
    elif not visible.reconnects or not after:
        gone = f"{text}; a camera that was unplugged did not come back within {MOST_SELF_TEST_SECONDS:g} s"
        yield Finding("problem", gone, again)
    elif visible.fused < SLOW * visible.captured:
        yield Finding("warning", f"{back}; the machine is too slow or busy", "End other programs, try again.")
    else:
        yield ok(back)


@contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing of a run meanwhile: that its camera is lost is what is wanted."""
    logger = logging.getLogger("edgefuse.runtime")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _unreliable_camera() -> "Camera":
    """Return a simulated camera that is unplugged for a moment."""
    from edgefuse.errors import LostError
    from edgefuse.runtime.cameras.camera import Camera
    from edgefuse.runtime.frames import Frame
    from edgefuse.runtime.sources.base import Spec
    from edgefuse.runtime.sources.wrappers import SimulatedCamera

    off = [float("inf")]

    def check() -> None:
        if off[0] <= time.monotonic() < off[0] + UNPLUGGED[1] * SELF_TEST_SECONDS:
            raise LostError(f"{SMALL} is unplugged, for the self-test")

    class Unreliable(SimulatedCamera):
        def read(self) -> Frame | None:
            frame = super().read()
            off[0] = min(off[0], time.monotonic() + UNPLUGGED[0] * SELF_TEST_SECONDS)
            check()
            return frame

    camera = Unreliable(Spec.parse(SMALL), "vis")

    def plug_in() -> Unreliable:
        check()
        return camera

    return Camera(SMALL, plug_in)


CHECKS: dict[str, Callable[[], Iterable[Finding]]] = {
    "python": python,
    "wheels": wheels,
    "opencv": opencv,
    "engines": engines,
    "accelerators": accelerators,
    "cameras": cameras,
    "usb": usb,
    "kernel": kernel,
    "machine": virtual,
    "display": display,
    "codecs": codecs,
    "disk": disk,
    "clock": clock,
    "self-test": self_test,
}
"""Name → function that yields findings, in the order in which they run."""


def examine() -> Iterator[Finding]:
    """Yield what the checks find, as they find it, within half a minute, whatever hangs.

    A check that fails or takes too long is a problem itself; one that there is no time left for, a warning.
    """
    end = time.monotonic() + MOST_SECONDS
    for name, check in CHECKS.items():
        if (left := end - time.monotonic()) <= 0:
            text = f"not checked: the others have taken {MOST_SECONDS:g} s"
            yield Finding("warning", text, "End other programs and try again.", name)
            continue
        for found in _within(check, min(CHECK_SECONDS, left)):
            yield Finding(found.status, found.text, found.fix, name)


def _within(check: Callable[[], Iterable[Finding]], seconds: float) -> Iterator[Finding]:
    """Yield what a check finds in this time. It has a thread of its own, since drivers may never return."""
    findings: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()
    end = time.monotonic() + seconds

    def run() -> None:
        try:
            for found in check():
                findings.put(found)
        except Exception as error:  # whatever a broken machine raises
            text = f"could not be checked: {type(error).__name__}: {first_line(error)}"
            fix = "Fix the findings above first; if it stays, report it with this line."
            findings.put(Finding("problem", text, fix))
        findings.put(None)

    threading.Thread(target=run, name="check", daemon=True).start()
    try:
        while (found := findings.get(timeout=max(0.0, end - time.monotonic()))) is not None:
            yield found
    except queue.Empty:
        fix = "End other programs and try again; if it stays, a driver hangs: restart the machine."
        yield Finding("problem", f"did not finish within {seconds:.3g} s", fix)

"""The checks of `edgefuse doctor` that ask the kernel: GPU, USB, camera driver, virtual machine."""

import ctypes
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal, TypeAlias

from edgefuse.files import text_of

DEVICES, SYS, ETC, PROC = Path("/dev"), Path("/sys"), Path("/etc"), Path("/proc")
JETPACKS = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}
"""Major of Jetson Linux → major of JetPack."""
USB2 = 480
"""Mbit/s."""
Status: TypeAlias = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    status: Status
    """`problem`: something does not work; `warning`: something may be missed."""
    text: str
    fix: str = ""
    """What to do, one sentence; empty if all is well."""
    check: str = ""
    """Name in `CHECKS`."""


def ok(text: str) -> Finding:
    """Return that all is well."""
    return Finding("ok", text)


def accelerators() -> Iterator[Finding]:
    """The GPU's driver, and whether the TensorRT that is installed is for its CUDA."""
    release = re.search(r"R(\d+)", text_of(ETC / "nv_tegra_release"))
    if release:
        jetpack = JETPACKS.get(release[1], "of an unknown version")
        yield ok(f"Jetson, Jetson Linux {release[1]}, JetPack {jetpack}")
    cuda = _driver_cuda()
    if cuda is None:
        yield ok("no NVIDIA driver: the engines cuda and tensorrt cannot run")
        return
    majors = {
        found[1]
        for each in distributions()
        if (found := re.fullmatch(r"tensorrt[-_]cu(\d+)", each.metadata["Name"] or ""))
    }
    text = f"NVIDIA driver for CUDA {cuda[0]}.{cuda[1]}"
    if majors and all(int(major) > cuda[0] for major in majors):
        fix = f"pip uninstall -y tensorrt-cu{max(majors)}; pip install tensorrt-cu{cuda[0]}."
        yield Finding("problem", f"{text}, TensorRT is for CUDA {', '.join(sorted(majors))}", fix)
    elif not majors:
        hint = "" if release else f"; for TensorRT: pip install tensorrt-cu{cuda[0]}"
        yield ok(text + hint)
    else:
        yield ok(f"{text}, TensorRT for CUDA {', '.join(sorted(majors))}")


def _driver_cuda() -> tuple[int, int] | None:
    """Return the newest CUDA that the driver can do, as it says itself; None: there is no driver."""
    try:
        version, driver = ctypes.c_int(), ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    if driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10


def usb() -> Iterator[Finding]:
    """Cameras on USB with the speed of their bus, and whether they share one that is too narrow for two."""
    buses: dict[tuple[str, str], list[str]] = {}
    for node in sorted(SYS.glob("class/video4linux/video*")):
        device = (node / "device").resolve()
        for above in (device, *device.parents):
            if (above / "busnum").exists():
                # One camera has several nodes: for pictures, and for what is known about them.
                places = buses.setdefault((text_of(above / "busnum"), text_of(above / "speed")), [])
                if above.name not in [place.partition(" ")[0] for place in places]:
                    places.append(f"{above.name} (cam{node.name.removeprefix('video')})")
                break
    for (bus, speed), places in buses.items():
        text = f"USB bus {bus} at {speed} Mbit/s: {', '.join(places)}"
        if len(places) > 1 and float(speed or 0) <= USB2:
            fix = "Plug one into a port of another bus, or ask for less: cam0?format=MJPG, or a smaller size."
            more = "two streams of 640x480 in YUYV at 30 per second already take 295 Mbit/s"
            yield Finding("warning", f"{text} share it; {more}", fix)
        else:
            yield ok(text)
    if not buses:
        yield ok("no camera on USB")


def kernel() -> Iterator[Finding]:
    """Settings of the camera driver that keep streams from running well."""
    parameters = SYS / "module/uvcvideo/parameters"
    if not parameters.exists():
        yield ok("the driver of USB cameras (uvcvideo) is not loaded")
        return
    clock, quirks = text_of(parameters / "clock"), text_of(parameters / "quirks")
    if clock and "MONOTONIC" not in clock:
        fix = "echo CLOCK_MONOTONIC | sudo tee /sys/module/uvcvideo/parameters/clock."
        yield Finding("warning", f"uvcvideo stamps frames by {clock}, which jumps when the clock is set", fix)
    if text_of(parameters / "nodrop") in ("1", "Y"):
        fix = "echo 0 | sudo tee /sys/module/uvcvideo/parameters/nodrop."
        yield Finding("warning", "uvcvideo hands over incomplete frames (nodrop)", fix)
    asleep = [
        path.parent.parent.name
        for path in SYS.glob("bus/usb/drivers/uvcvideo/*/../power/control")
        if text_of(path) == "auto"
    ]
    set_quirks = "" if quirks in ("", "4294967295", "-1", "0") else f", quirks {quirks} are set"
    yield ok(f"uvcvideo{set_quirks}{', cameras may be suspended when idle' if asleep else ''}")


def virtual() -> Iterator[Finding]:
    """Whether this is a virtual machine or a container, which see only what is handed in."""
    flags = re.search(r"^flags\s*:(.*)$", text_of(PROC / "cpuinfo"), re.MULTILINE)
    keys = (text_of(SYS / f"class/dmi/id/{key}") for key in ("sys_vendor", "product_name"))
    product = " ".join(filter(None, keys))
    if flags and "hypervisor" in flags[1].split():
        fix = "Hand cameras and the GPU in; expect times to vary more, and check the clock."
        yield Finding("warning", f"a virtual machine{f' ({product})' * bool(product)}", fix)
    else:
        yield ok(f"no virtual machine{f', {product}' * bool(product)}")
    if Path("/.dockerenv").exists() or "container" in os.environ:
        fix = "docker run --device /dev/video0 … for each camera, --gpus all for the GPU."
        found = sorted(DEVICES.glob("video*"))
        yield Finding("warning", "a container without a camera", fix) if not found else ok("a container")

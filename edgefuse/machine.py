"""The machine: what a measurement was taken on, and this process's memory on it."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from edgefuse.files import text_of

PACKAGES = (
    "edgefuse", "numpy", "opencv-python", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu",
    "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13",
)  # fmt: skip
SYS = Path("/sys")
GPU_SECONDS = 10.0
GPU_FACTS = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw"


@dataclass(frozen=True)
class Machine:
    """What a reader needs to judge a measurement. What cannot be known here is None or empty."""

    cpu: str
    cores: int
    usable_cores: int
    ram_gb: float | None
    os: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that are installed."""
    governor: str | None = None
    """How the kernel chooses the processor's clock, such as `performance`; None: not to be seen."""
    clock_mhz: float | None = None
    """Mean of the cores, now."""
    max_clock_mhz: float | None = None
    temperatures: dict[str, float] = field(default_factory=dict)
    """Degrees Celsius by sensor, now."""
    throttled: int | None = None
    """How often a core was slowed down for heat since the machine was started."""
    gpus: list[dict[str, str]] = field(default_factory=list)
    """Facts as `nvidia-smi` gives them, or of a Jetson its model, release and GPU clock."""
    load: float | None = None
    """Programs that wanted a core over the last minute, before the measurement."""

    def sentence(self) -> str:
        """Return the facts in one line."""
        facts = [self.cpu, f"{self.usable_cores} of {self.cores} cores"]
        facts += [f"{self.ram_gb:g} GB"] if self.ram_gb else []
        facts += [self.os, f"Python {self.python}"]
        facts += [f"governor {self.governor or 'unknown'}"]
        if self.clock_mhz:
            most = f" of {self.max_clock_mhz:.0f}" if self.max_clock_mhz else ""
            facts.append(f"{self.clock_mhz:.0f}{most} MHz")
        hottest = max(self.temperatures.values(), default=None)
        facts.append("temperature unknown" if hottest is None else f"{hottest:.0f} °C")
        if self.throttled:
            facts.append(f"slowed down for heat {self.throttled} times")
        facts += [", ".join(f"{name} {value}" for name, value in gpu.items()) for gpu in self.gpus] or [
            "no GPU"
        ]
        facts += [f"{name} {version}" for name, version in self.versions.items()]
        facts += [] if self.load is None else [f"load {self.load:.1f}"]
        return ", ".join(facts)


def describe_machine() -> Machine:
    """Return what this machine is, and how it is doing now."""
    clocks = [float(value) / 1000 for value in _each_core("cpufreq/scaling_cur_freq")] or _cpuinfo_clocks()
    limits = [float(value) / 1000 for value in _each_core("cpufreq/cpuinfo_max_freq")]
    governors = sorted(set(_each_core("cpufreq/scaling_governor")))
    throttled = [int(value) for value in _each_core("thermal_throttle/core_throttle_count")]
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        ram_gb=_ram_gb(),
        os=platform.platform(),
        python=platform.python_version(),
        versions=_versions(),
        governor=", ".join(governors) or None,
        clock_mhz=round(sum(clocks) / len(clocks)) if clocks else None,
        max_clock_mhz=round(max(limits)) if limits else None,
        temperatures=_temperatures(),
        throttled=sum(throttled) if throttled else None,
        gpus=_nvidia_gpus() or _jetson(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows or macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_bytes() -> int | None:
    """Return how much memory this process holds now; None: not to be known here."""
    if not sys.platform.startswith("linux"):
        return None
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int | None:
    """Return the most memory that this process has held; None: not to be known here."""
    if not sys.platform.startswith("linux"):
        return None
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _cpu_model() -> str:
    for line in text_of(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpuinfo_clocks() -> list[float]:
    lines = text_of(Path("/proc/cpuinfo")).splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _ram_gb() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _each_core(name: str) -> list[str]:
    found = (text_of(path) for path in sorted(SYS.glob(f"devices/system/cpu/cpu[0-9]*/{name}")))
    return [text for text in found if text]


def _temperatures() -> dict[str, float]:
    found = {}
    for zone in sorted(SYS.glob("class/thermal/thermal_zone*")):
        text = text_of(zone / "temp")
        if text.lstrip("-").isdecimal():
            found[text_of(zone / "type") or zone.name] = int(text) / 1000
    return found


def _nvidia_gpus() -> list[dict[str, str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={GPU_FACTS}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GPU_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(",") for line in done.stdout.splitlines() if line.strip())
    return [dict(zip(GPU_FACTS.split(","), map(str.strip, row), strict=False)) for row in rows]


def _jetson() -> list[dict[str, str]]:
    release = text_of(Path("/etc/nv_tegra_release"))
    if not release:
        return []
    model = text_of(Path("/proc/device-tree/model")).rstrip("\0")
    clock = next((text_of(path) for path in SYS.glob("class/devfreq/*gpu*/cur_freq")), "")
    known = {"name": model, "release": release.splitlines()[0].lstrip("# "), "clock Hz": clock}
    return [{name: value for name, value in known.items() if value}]


# Parameters of mallopt(3), from <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
ARENAS = 2
PAD = 64 * 2**20


def share_arenas() -> bool:
    """Have all threads of this process share two arenas; return whether they will.

    To be called before there are threads: what is there stays.
    """
    return _set({M_ARENA_MAX: ARENAS})


def keep_heap() -> bool:
    """Keep freed memory for this process; return whether that will be so.

    The process then holds its peak memory until it ends, so this is for one that does nothing else.
    """
    return _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: PAD})


def return_memory() -> None:
    """Give the system back what is free between blocks in use.

    Takes milliseconds, and as long again until what is still needed is allocated again: for moments when a
    camera or a file was closed, which leaves such gaps.
    """
    if (trim := _glibc("malloc_trim")) is not None:
        trim(ctypes.c_size_t(0))


def _set(values: dict[int, int]) -> bool:
    mallopt = _glibc("mallopt")
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in values.items())


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None

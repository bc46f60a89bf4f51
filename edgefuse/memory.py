"""How glibc handles this process's memory; with other C libraries nothing of this does anything.

glibc gives each thread its own heap ("arena"), up to eight for each core. An arena keeps the most memory that
any thread has ever needed in it, and cameras and files are reopened in new threads: memory grows for hours.
With few arenas, all threads share the same memory. Large blocks it returns to the system when they are freed:
a training step on a CPU asks for hundreds of them again, and much of its time goes into page faults.
"""

import ctypes
import sys
from typing import Any

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

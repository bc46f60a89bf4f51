"""Keeping the memory of programs small that run for weeks.

glibc gives each thread its own heap ("arena"), up to eight for each core. An arena keeps the most memory that
any thread has ever needed in it, and cameras and files are reopened in new threads: memory grows for hours.
With few arenas, all threads share the same memory.
"""

import ctypes
import sys
from typing import Any

__all__ = ["return_memory", "share_arenas"]

M_ARENA_MAX = -8  # of mallopt(3), from <malloc.h>
ARENAS = 2


def share_arenas() -> bool:
    """Tell glibc to have all threads of this process share two arenas; return whether it will.

    To be called before there are threads: what is there stays. Elsewhere it does nothing.
    """
    mallopt = _glibc("mallopt")
    return mallopt is not None and mallopt(M_ARENA_MAX, ARENAS) == 1


def return_memory() -> None:
    """Have glibc give the system back what is free between blocks in use; elsewhere it does nothing.

    Takes milliseconds, and as long again until what is still needed is allocated again: for moments when a
    camera or a file was closed, which leaves such gaps.
    """
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None

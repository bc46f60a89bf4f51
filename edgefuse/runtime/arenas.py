"""Memory of programs that run for weeks.

glibc gives threads heaps ("arenas") of their own, up to eight for each core. Every one of them comes to hold
what the hungriest thread that ever used it has needed, and as cameras and files are opened again in new
threads, that goes on for hours. With few arenas the same memory serves all.
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

    Takes milliseconds, and so many again until what is still needed has been taken anew: for moments when a
    camera or a file was closed, which leaves such gaps.
    """
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None

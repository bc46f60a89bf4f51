"""Memory of programs that run for weeks.

glibc gives threads heaps ("arenas") of their own, up to eight for each core. Every one of them comes to hold
what the hungriest thread that ever used it has needed, and as cameras and files are opened again in new
threads, that goes on for hours. With few arenas the same memory serves all.
"""

import ctypes
import sys

__all__ = ["share_arenas"]

M_ARENA_MAX = -8  # of mallopt(3), from <malloc.h>
ARENAS = 2


def share_arenas() -> bool:
    """Tell glibc to have all threads of this process share two arenas; return whether it will.

    To be called before there are threads: what is there stays. Elsewhere it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_ARENA_MAX, ARENAS) == 1

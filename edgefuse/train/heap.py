"""Keeping memory that training asks for again and again.

glibc returns every large block to the system when it is freed, and a training step on a CPU frees and asks
for hundreds of them: much of its time goes into page faults.
"""

import ctypes
import sys

__all__ = ["keep_heap"]

# Parameters of mallopt(3), from <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
PAD = 64 * 2**20


def keep_heap() -> bool:
    """Tell glibc to keep freed memory for this process; return whether it did. Elsewhere it does nothing.

    The process then holds its peak memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)

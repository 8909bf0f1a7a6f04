"""Memory that is freed and needed again in the next step, kept instead of given back to the kernel."""

from __future__ import annotations

import ctypes
import sys

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc reuse large blocks; returns whether it could be told to.

    A step on the CPU allocates and frees the same maps as the one before. By default each block above some megabytes is
    mapped anew, and the kernel clears every page of it when it is first touched. Kept blocks count as the process's
    memory until it ends, at most as much as its peak. Other C libraries, and allocators loaded in glibc's place, are
    left alone or ignore it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT), mallopt(_M_TOP_PAD, 2**26)])

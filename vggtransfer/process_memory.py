"""Memory of this process: how much more it may take, and what it keeps of what was freed."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST_INT = 2**31 - 1

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def keep_freed_memory() -> bool:
    """Makes glibc reuse large blocks until the process ends; returns whether it could be told to.

    A step on the CPU allocates and frees the same maps as the one before. By default each block above some megabytes is
    mapped anew, and the kernel clears every page of it when it is first touched. For processes that do little else: no
    large block goes back to the system any more. Other C libraries, and allocators loaded in glibc's place, are left
    alone or ignore it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT), mallopt(_M_TOP_PAD, 2**26)])


def available_memory() -> int:
    """Bytes that can be had without swapping: of the machine, or of the container or batch job if that has less."""
    import psutil

    available: int = psutil.virtual_memory().available
    for group in _memory_groups():
        with suppress(OSError, ValueError, StopIteration):
            limit = int((group / "memory.max").read_text())  # "max" without a limit
            used = int((group / "memory.current").read_text())
            statistics = (group / "memory.stat").read_text().splitlines()
            # Cached files count as used, but give way.
            cached = next(int(line.split()[1]) for line in statistics if line.startswith("inactive_file "))
            available = min(available, max(0, limit - used + cached))
    return available


def _memory_groups() -> list[Path]:
    """The control groups (version 2) that this process is in, from its own to the root."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                own = _CONTROL_GROUPS / line.removeprefix("0::").lstrip("/")
                return [own, *(parent for parent in own.parents if parent.is_relative_to(_CONTROL_GROUPS))]
    return []

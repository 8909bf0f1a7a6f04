"""How much memory training a network took, as far as the machine can tell."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEBIBYTE = 2**20


class PeakMemory:
    """The peak since `start()`: of tensors on a CUDA device, else of what the whole process keeps in memory.

    The latter, Linux only, includes Python, torch and its libraries, but not the processes that load pictures.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._known = device.type == "cuda"

    @property
    def heading(self) -> str:
        """What is measured, as the heading of a column."""
        return "GPU memory, peak (MiB)" if self.device.type == "cuda" else "process memory, peak (MiB)"

    def start(self) -> None:
        """Gives back what earlier networks left, and begins anew."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "cpu" and sys.platform == "linux":
            # glibc keeps freed memory, which would count for the next network.
            getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
            try:
                _CLEAR.write_text("5")  # proc(5): resets the peak
                self._known = True
            except OSError:
                self._known = False

    def mebibytes(self) -> float | None:
        """The peak; None where it cannot be known."""
        if not self._known:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / _MEBIBYTE
        peak = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return None if peak is None else int(peak[1]) / 1024

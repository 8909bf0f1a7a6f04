"""Which device to compute on, and in which floating-point type and memory layout on the hardware at hand.

torch is imported where it is needed, because commands name these types in their signatures and `--help` must stay fast.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

from vggtransfer.errors import OptionError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_device(device: str) -> torch.device:
    """Chooses the device: `"auto"` is the first GPU of CUDA (or ROCm), else that of Apple (MPS), else the CPU.

    Args:
        device: `"auto"`, `"cpu"`, `"cuda"`, one of several such as `"cuda:1"`, or `"mps"`.

    Raises:
        OptionError: No such device, or this machine has none; nothing falls back silently to the CPU.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in device and (kind != "cuda" or not number.isdecimal())):
        raise OptionError(f"device={device} is not possible: use auto, cpu, cuda, cuda:0 (1, 2, ...) or mps")
    if kind == "cuda":
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= available:
            found = f"{available} of them" if available else "none"
            raise OptionError(f"device={device}: torch finds {found} on this machine; use auto or cpu")
        return torch.device("cuda", int(number or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise OptionError("device=mps: torch finds no Apple GPU on this machine; use auto or cpu")
    return torch.device(kind)


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Chooses the autocast type; `torch.float32` means no autocast.

    `"auto"` is bfloat16 where the hardware multiplies it natively (CUDA compute capability 8.0 and up, CPUs with AMX
    or AVX512-BF16) and float32 elsewhere. float16 is never chosen unasked: it needs loss scaling.

    Raises:
        OptionError: float16 on a CPU, where convolutions in it are slower than float32; or an unknown precision.
    """
    import torch

    match precision:
        case "fp32":
            return torch.float32
        case "bf16":
            return torch.bfloat16
        case "fp16":
            if device.type == "cpu":
                raise OptionError("precision=fp16 is for GPUs; on a CPU use bf16, fp32 or auto")
            return torch.float16
        case "auto":
            return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    raise OptionError(f"precision={precision} is not possible: use auto, fp32, bf16 or fp16")


def autocast(device: torch.device, compute_type: torch.dtype) -> AbstractContextManager[object]:
    """A context that computes in what `resolve_precision` chose; for float32 one that does nothing."""
    import torch

    return nullcontext() if compute_type == torch.float32 else torch.autocast(device.type, dtype=compute_type)


def prefers_channels_last(device: torch.device) -> bool:
    """Whether to use `torch.channels_last`: PyTorch speeds it up on CPUs and CUDA devices, but not on Apple GPUs."""
    return device.type != "mps"


def _multiplies_bfloat16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch.cpu has no public query for these instruction sets yet.
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False

"""Which floating-point type to compute in, on the hardware at hand."""

from __future__ import annotations

from typing import Literal

import torch

from vggtransfer.errors import OptionError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Chooses the autocast type; `torch.float32` means no autocast.

    `"auto"` is bfloat16 where the hardware multiplies it natively (CUDA compute capability 8.0 and up, CPUs with AMX
    or AVX512-BF16) and float32 elsewhere. float16 is never chosen unasked: it needs loss scaling.

    Raises:
        OptionError: float16 on a CPU, where convolutions in it are slower than float32.
    """
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


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch.cpu has no public query for these instruction sets yet.
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False

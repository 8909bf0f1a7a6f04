"""In which floating-point types a loss computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vggtransfer.errors import OptionError

LossPrecision = Literal["auto", "fp32", "mixed", "bf16", "fp16"]


@dataclass(frozen=True)
class ComputeTypes:
    """Types of the trunk's work. What follows the trunk, sums over channels and positions, is in float32 always.

    Attributes:
        pictures: Forward pass of pictures that a gradient is to reach.
        gradient: Backward pass, and the maps that losses are given of these pictures.
        target: Forward pass of pictures that no gradient is to reach.
    """

    pictures: torch.dtype
    gradient: torch.dtype
    target: torch.dtype


def compute_types(precision: LossPrecision, device: torch.device) -> ComputeTypes:
    """Chooses the types.

    `"auto"` follows autocast: its type inside, float32 outside. `"mixed"` is bfloat16 but for the forward pass of
    pictures that a gradient is to reach: that one rounded to 8 bits turns the signs of so many ReLUs that the
    gradient itself points elsewhere.

    Raises:
        OptionError: An unknown precision.
    """
    match precision:
        case "auto":
            inside = torch.is_autocast_enabled(device.type)
            same = torch.get_autocast_dtype(device.type) if inside else torch.float32
        case "fp32":
            same = torch.float32
        case "bf16":
            same = torch.bfloat16
        case "fp16":
            same = torch.float16
        case "mixed":
            return ComputeTypes(torch.float32, torch.bfloat16, torch.bfloat16)
        case _:
            raise OptionError(f"precision={precision} is not possible: use auto, fp32, mixed, bf16 or fp16")
    return ComputeTypes(same, same, same)


def in_float32(taps: Mapping[str, Tensor]) -> torch.autocast:
    """A context in which operations keep the type of their input; inputs are to be converted by the caller."""
    return torch.autocast(next(iter(taps.values())).device.type, enabled=False)

"""One bit per value: the signs that a backward pass through ReLU and pooling needs, packed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Multiplying eight bytes of 0 or 1, read as one number, by this moves them into the eight bits of the highest byte.
_GATHER = 0x0102040810204080
# One byte copied to all eight, and the bit that each copy is to show.
_COPY = 0x0101010101010101
_PICK = 0x8040201008040201 - 2**64


def pack(values: Tensor) -> Tensor:
    """Returns one bit per value, whether it is not 0, as uint8 [ceil(values.numel() / 8)].

    Args:
        values: Any shape, contiguous.
    """
    flags = values.flatten().bool()
    flags = F.pad(flags, (0, -flags.numel() % 8))
    return ((flags.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def masked(values: Tensor, bits: Tensor) -> Tensor:
    """Returns a copy of values with 0 where the bit is 0.

    Args:
        values: Floating point, contiguous, of the shape that was packed.
        bits: From `pack`.
    """
    spread = (bits.to(torch.int64) * _COPY) & _PICK
    flags = spread.view(torch.uint8)[: values.numel()].to(values.dtype).view_as(values)
    return torch.ops.aten.threshold_backward(values, flags, 0)  # values where flags > 0

"""One bit per value: the signs that a backward pass through ReLU and pooling needs, packed.

Work goes in pieces that fit a CPU's cache, so that what lies between the steps never goes to memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Multiplying eight bytes of 0 or 1, read as one number, by this moves them into the eight bits of the highest byte.
_GATHER = 0x0102040810204080
# One byte copied to all eight, and the bit that each copy is to show.
_COPY = 0x0101010101010101
_PICK = 0x8040201008040201 - 2**64
# Brings any bit of a byte to its highest, which is then looked at alone.
_CARRY = 0x7F7F7F7F7F7F7F7F
_HIGHEST = 0x8080808080808080 - 2**64

_PIECE = 2**19


def pack(values: Tensor) -> Tensor:
    """Returns one bit per value, whether it is not 0, as uint8 [ceil(values.numel() / 8)].

    Args:
        values: Any shape, contiguous.
    """
    flat = values.flatten()
    bits = torch.empty(-(-flat.numel() // 8), dtype=torch.uint8, device=values.device)
    step = _piece(values)
    for start in range(0, flat.numel(), step):
        flags = flat[start : start + step].bool()
        if flags.numel() % 8:
            flags = torch.cat([flags, flags.new_zeros(-flags.numel() % 8)])
        bits[start // 8 : (start + step) // 8].copy_(flags.view(torch.int64).mul_(_GATHER).__irshift__(56))
    return bits


def mask_(values: Tensor, bits: Tensor) -> Tensor:
    """Sets values to 0 where the bit is 0, and returns them.

    Args:
        values: Floating point, contiguous, of the shape that was packed.
        bits: From `pack`.
    """
    flat = values.view(-1)
    step = _piece(values)
    for start in range(0, flat.numel(), step):
        part = flat[start : start + step]
        spread = bits[start // 8 : (start + step) // 8].to(torch.int64).mul_(_COPY).bitwise_and_(_PICK)
        if part.itemsize == 2:
            # All 16 bits or none; floats of 16 bits are slow to multiply on CPUs.
            signs = spread.add_(_CARRY).bitwise_and_(_HIGHEST).view(torch.int8)[: part.numel()]
            part.view(torch.int16).bitwise_and_(signs.to(torch.int16).__irshift__(7))
        else:
            flags = spread.view(torch.uint8)[: part.numel()].to(part.dtype)
            # The values where flags > 0.
            torch.ops.aten.threshold_backward.grad_input(part, flags, 0, grad_input=part)
    return values


def _piece(values: Tensor) -> int:
    return _PIECE if values.device.type == "cpu" else max(8, -(-values.numel() // 8) * 8)

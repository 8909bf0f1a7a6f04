"""How one feature map is kept as bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Storage = Literal["fp32", "bf16", "fp16", "int8"]

_TYPES: Mapping[Storage, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SMALL_MAP = 16  # positions; below, the range of a channel would take more bytes than its values


@dataclass(frozen=True)
class MapFormat:
    """Maps of one shape in one number format; a row is the bytes of one map.

    `"int8"` is affine with 256 levels between the smallest and the largest value of each channel (of the whole map
    where it has few positions), which are kept in float32 beside them.

    Attributes:
        shape: [channels, height, width], or [features].
        storage: Number format.
    """

    shape: tuple[int, ...]
    storage: Storage

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        if self.storage == "int8":
            return math.prod(self.shape) + 8 * self._ranges
        return math.prod(self.shape) * _TYPES[self.storage].itemsize

    def encode(self, maps: Tensor) -> Tensor:
        """Turns maps [batch, *shape] into rows uint8 [batch, row_bytes] on the CPU.

        Channels are innermost in a row, so that rows read back are `torch.channels_last` as they lie.
        """
        count = len(maps)
        flat = maps.permute(0, 2, 3, 1) if maps.dim() == 4 else maps
        if self.storage != "int8":
            return flat.to(_TYPES[self.storage]).cpu().contiguous().view(count, -1).view(torch.uint8)
        grouped = flat.float().reshape(count, -1, self._ranges)
        low, high = grouped.amin(dim=1, keepdim=True), grouped.amax(dim=1, keepdim=True)
        step = (high - low) / 255
        levels = ((grouped - low) / step.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.uint8)
        ranges = torch.cat([low, step], dim=1).cpu().contiguous().view(count, -1).view(torch.uint8)
        return torch.cat([ranges, levels.cpu().reshape(count, -1)], dim=1)

    def decode(self, rows: Tensor, compute_type: torch.dtype) -> Tensor:
        """Turns rows back into maps [batch, *shape] of a compute type, on the rows' device."""
        count = len(rows)
        if self.storage == "int8":
            split = 8 * self._ranges
            low, step = rows[:, :split].contiguous().view(torch.float32).view(count, 2, 1, -1).unbind(dim=1)
            levels = rows[:, split:].reshape(count, -1, self._ranges)
            flat = torch.addcmul(low, levels.to(torch.float32), step).to(compute_type)
        else:
            flat = rows.view(_TYPES[self.storage]).to(compute_type)
        if len(self.shape) == 1:
            return flat.reshape(count, *self.shape)
        channels, height, width = self.shape
        return flat.reshape(count, height, width, channels).permute(0, 3, 1, 2)

    @property
    def _ranges(self) -> int:
        return self.shape[0] if math.prod(self.shape[1:]) >= _SMALL_MAP else 1


def storage_of(compute_type: torch.dtype) -> Storage:
    """The format that loses nothing of what is computed in a type."""
    return next(storage for storage, kept in _TYPES.items() if kept == compute_type)

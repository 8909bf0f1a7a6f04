"""Where autocast must not reach: sums over channels and positions overflow or drown in 8 or 11 bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def in_float32(taps: Mapping[str, Tensor]) -> torch.autocast:
    """A context in which operations keep the type of their input; inputs are to be converted by the caller."""
    return torch.autocast(next(iter(taps.values())).device.type, enabled=False)

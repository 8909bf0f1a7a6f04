"""GeM pooling whose exponent trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggtransfer.features.pooling import GEM_EXPONENT, GEM_FLOOR


class GeM(nn.Module):
    """Generalised-mean pooling with a learnable exponent (Radenovic et al. 2018, equations 3, 5 and 6).

    Args:
        exponent: The p to begin with; 1 is average pooling, and the larger it is, the nearer it comes to max pooling.
        channels: For an exponent per channel of the map; None for one that all of them share, as the paper advises.

    Attributes:
        exponent: The p as it is now, float32 [] or [channels].
    """

    def __init__(self, exponent: float = GEM_EXPONENT, *, channels: int | None = None) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.full(() if channels is None else (channels,), float(exponent)))

    def forward(self, maps: Tensor) -> Tensor:
        """Pools [batch, channels, height, width] to float32 [batch, channels]; negative values count as 0."""
        exponent = self.exponent.float()
        powers = maps.float().clamp(min=GEM_FLOOR).pow(exponent.view(-1, 1, 1))
        return powers.mean(dim=(2, 3)).pow(1 / exponent)

    def extra_repr(self) -> str:
        return f"exponent={self.exponent.detach().mean():.3f}"

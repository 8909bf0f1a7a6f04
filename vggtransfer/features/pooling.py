"""From the map of a layer to one vector per picture."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

PoolName = Literal["gap", "max", "gem", "rmac", "crow", "none"]
"""`gap`: global average pooling, the mean over all places of a map (Lin et al. 2014, "Network In Network"); but for a
factor the sum of SPoC (Babenko & Lempitsky 2015, without their centre prior).
`max`: global max pooling, known as MAC in retrieval (Tolias et al. 2016).
`gem`: generalised mean, between the two: (mean(x^p))^(1/p) with p = 3 (Radenovic et al. 2018, "Fine-tuning CNN Image
Retrieval with No Human Annotation", equation 3), the value that training of p ends near there.
`rmac`: sum of the unit vectors of max pooling over square regions of three sizes (Tolias et al. 2016, section 3.3).
`crow`: sum weighted by how active a place is and how rare a channel (Kalantidis et al. 2016, sections 3.2 and 3.3).
`none`: the map as it is."""

GEM_EXPONENT = 3.0
# Below this GeM takes values for this, as its authors' code does: the mean is defined for positive numbers only.
GEM_FLOOR = 1e-6
_RMAC_LEVELS = 3
_RMAC_OVERLAP = 0.4  # of neighbouring regions of the largest size
_CROW_EPSILON = 1e-6
_LEAST_NORM = 1e-12


def pool_maps(maps: Tensor, pool: PoolName, *, exponent: float = GEM_EXPONENT) -> Tensor:
    """Sums up maps over their places, in float32 whatever they come in.

    Args:
        maps: [batch, channels, height, width]. GeM and CroW are meant for maps behind a ReLU: they take negative values
            for 0.
        pool: See `PoolName`.
        exponent: The p of GeM.

    Returns:
        float32 [batch, channels], or [batch, channels, height, width] without pooling.
    """
    import torch

    match pool:
        case "gap":
            return maps.mean(dim=(2, 3), dtype=torch.float32)
        case "max":
            return maps.amax(dim=(2, 3)).float()
        case "gem":
            powers = maps.float().clamp(min=GEM_FLOOR).pow(exponent)
            return powers.mean(dim=(2, 3)).pow(1 / exponent)
        case "rmac":
            return _rmac(maps)
        case "crow":
            return _crow(maps.float().clamp(min=0))
        case "none":
            return maps.float()


def pooled_shape(map_shape: tuple[int, int, int], pool: PoolName) -> tuple[int, ...]:
    """The shape that a map [channels, height, width] of one picture has after pooling."""
    return map_shape if pool == "none" else map_shape[:1]


def rmac_regions(height: int, width: int) -> list[tuple[int, int, int]]:
    """The regions of R-MAC in a map, each as (top, left, side).

    Level l = 1, 2, 3 has l squares of side 2 min(height, width) / (l + 1) along the short side, and along the long one
    as many more as bring the overlap of the largest squares nearest to 40 %. Levels without a whole place are left out.
    """
    short, long = sorted((height, width))
    more = 0
    if long > short:
        # With n squares of the short side in a row, neighbours share 1 - (long - short) / ((n - 1) short) of it.
        overlaps = {count: 1 - (long - short) / ((count - 1) * short) for count in range(2, 8)}
        more = min(overlaps, key=lambda count: abs(overlaps[count] - _RMAC_OVERLAP)) - 1
    regions = []
    for level in range(1, _RMAC_LEVELS + 1):
        side = 2 * short // (level + 1)
        if side:
            tops = _starts(height, side, level + (more if height > width else 0))
            lefts = _starts(width, side, level + (more if width > height else 0))
            regions += [(top, left, side) for top, left in itertools.product(tops, lefts)]
    return regions


def _starts(length: int, side: int, count: int) -> list[int]:
    return [number * (length - side) // max(1, count - 1) for number in range(count)]


def _rmac(maps: Tensor) -> Tensor:
    import torch
    from torch.nn import functional as F

    # Channels last, and one axis after the other: maxima over both axes of a part of a map are several times as slow.
    places = maps.permute(0, 2, 3, 1)
    total = torch.zeros(maps.shape[:2], device=maps.device)
    strips: dict[tuple[int, int], Tensor] = {}
    for top, left, side in rmac_regions(*maps.shape[2:]):
        if (top, side) not in strips:
            strips[top, side] = places[:, top : top + side].amax(dim=1)
        region = strips[top, side][:, left : left + side].amax(dim=1)
        total += F.normalize(region.float(), dim=1, eps=_LEAST_NORM)
    return total


def _crow(maps: Tensor) -> Tensor:
    activity = maps.sum(dim=1, keepdim=True)
    norm = activity.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp(min=_LEAST_NORM)
    places = (activity / norm).sqrt()
    filled = (maps > 0).float().mean(dim=(2, 3))
    rarity = ((maps.shape[1] * _CROW_EPSILON + filled.sum(dim=1, keepdim=True)) / (_CROW_EPSILON + filled)).log()
    return rarity * (places * maps).sum(dim=(2, 3))

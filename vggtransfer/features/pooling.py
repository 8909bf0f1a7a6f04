"""From the map of a layer to one vector per picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

PoolName = Literal["gap", "max", "gem", "none"]
"""`gap`: global average pooling, the mean over all places of a map (Lin et al. 2014, "Network In Network").
`max`: global max pooling, known as MAC in retrieval (Tolias et al. 2016).
`gem`: generalised mean, between the two: (mean(x^p))^(1/p) with p = 3 (Radenovic et al. 2018, "Fine-tuning CNN Image
Retrieval with No Human Annotation", equation 3), the value that training of p ends near there.
`none`: the map as it is."""

GEM_EXPONENT = 3.0
# Below this GeM takes values for this, as its authors' code does: the mean is defined for positive numbers only.
_GEM_FLOOR = 1e-6


def pool_maps(maps: Tensor, pool: PoolName) -> Tensor:
    """Sums up maps over their places, in float32 whatever they come in.

    Args:
        maps: [batch, channels, height, width]. GeM is meant for maps behind a ReLU: it takes negative values for 0.
        pool: See `PoolName`.

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
            powers = maps.float().clamp(min=_GEM_FLOOR).pow(GEM_EXPONENT)
            return powers.mean(dim=(2, 3)).pow(1 / GEM_EXPONENT)
        case "none":
            return maps.float()


def pooled_shape(map_shape: tuple[int, int, int], pool: PoolName) -> tuple[int, ...]:
    """The shape that a map [channels, height, width] of one picture has after pooling."""
    return map_shape if pool == "none" else map_shape[:1]

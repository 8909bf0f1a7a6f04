"""ContextualLoss: for pictures that do not lie on each other: does each place of the target have its like?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.feature_loss import FeatureLoss, Reduction
from vggtransfer.perceptual.layer_weights import checked_weights
from vggtransfer.perceptual.precision import LossPrecision, in_float32
from vggtransfer.perceptual.trunk import build_trunk

_EPSILON = 1e-5  # of equation 2
MECHREZ_LAYERS = {"relu3_2": 1.0, "relu4_2": 1.0}


class ContextualLoss(FeatureLoss):
    """Contextual loss (Mechrez et al. 2018), or contextual bilateral loss CoBi (Zhang et al. 2019).

    With d_ij the cosine distance between position i of the picture and j of the target, both minus the target's mean,
    Mechrez et al., equations 2 to 5: d'_ij = d_ij / (min_k d_ik + 1e-5), w_ij = exp((1 - d'_ij) / bandwidth),
    CX_ij = w_ij / sum_k w_ik, and the loss is -log(mean_j max_i CX_ij).

    With `spatial_weight`, CoBi (Zhang et al., equation 4): mean_i min_j (d_ij + spatial_weight * s_ij), s_ij being the
    distance between the places in units of the picture's longer side.

    All pairs of positions are compared, `rows` of the picture's at a time, and again for the gradient: memory grows
    with rows times positions, not with their square.

    Args:
        layers: Weight of each layer; None is relu3_2 and relu4_2.
        bandwidth: h of equation 3.
        spatial_weight: None for the contextual loss; a number for CoBi.
        rows: Positions of the picture compared at once.
        net: Architecture, or an encoder to take weights from.
        weights: As for `VGGEncoder`.
        in_channels: Channels of the pictures.
        reduction: `"mean"` or `"sum"` over the batch, or `"none"` for one value per picture.
        precision: Types of the trunk\'s work, see `compute_types`; `"auto"` follows autocast.

    Raises:
        OptionError: An argument that cannot be used.
        WeightsError: Weights that cannot be found, verified or matched.
    """

    def __init__(
        self,
        layers: Mapping[str, float] | None = None,
        *,
        bandwidth: float = 0.5,
        spatial_weight: float | None = None,
        rows: int = 512,
        net: str | VGGEncoder = "vgg16",
        weights: str | Path | None = "default",
        in_channels: int = 3,
        reduction: Reduction = "mean",
        precision: LossPrecision = "auto",
    ) -> None:
        if not bandwidth > 0 or rows < 1 or not (spatial_weight is None or spatial_weight >= 0):
            raise OptionError(
                f"bandwidth={bandwidth}, rows={rows}, spatial_weight={spatial_weight}: bandwidth must be above 0, rows "
                "at least 1, spatial_weight None or at least 0"
            )
        trunk = build_trunk(net, weights=weights, in_channels=in_channels, precision=precision)
        layer_weights = checked_weights(
            {"relu3_2": 1.0, "relu4_2": 1.0} if layers is None else layers, trunk.architecture
        )
        super().__init__(tuple(layer_weights), trunk=trunk, reduction=reduction, same_size=False)
        self.layer_weights = layer_weights
        self.bandwidth = bandwidth
        self.spatial_weight = spatial_weight
        self.rows = rows

    def compare(self, taps: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        with in_float32(taps):
            for name, weight in self.layer_weights.items():
                x, y = taps[name].float(), target[name].float()
                mean = y.mean(dim=(2, 3), keepdim=True)
                rows = F.normalize(x - mean, dim=1).flatten(2).transpose(1, 2)
                columns = F.normalize(y - mean, dim=1).flatten(2)
                if self.spatial_weight is None:
                    found[name] = weight * self._contextual(rows, columns)
                else:
                    found[name] = weight * self._bilateral(rows, columns, places(x), places(y), self.spatial_weight)
        return found

    def extra_repr(self) -> str:
        return f"{self.layer_weights}, bandwidth={self.bandwidth}, spatial_weight={self.spatial_weight}, {self.trunk}"

    def _contextual(self, rows: Tensor, columns: Tensor) -> Tensor:
        def best_of(part: Tensor, columns: Tensor) -> Tensor:
            distances = (1 - part @ columns).clamp_min(0)
            relative = distances / (distances.amin(dim=2, keepdim=True) + _EPSILON)
            return torch.softmax((1 - relative) / self.bandwidth, dim=2).amax(dim=1)

        best = [_recomputed(best_of, part, columns) for part in torch.split(rows, self.rows, dim=1)]
        return -torch.stack(best).amax(dim=0).mean(dim=1).log()

    def _bilateral(
        self, rows: Tensor, columns: Tensor, row_places: Tensor, column_places: Tensor, spatial_weight: float
    ) -> Tensor:
        def nearest(part: Tensor, columns: Tensor, part_places: Tensor) -> Tensor:
            distances = (1 - part @ columns).clamp_min(0)
            return (distances + spatial_weight * torch.cdist(part_places, column_places)).amin(dim=2)

        parts = zip(torch.split(rows, self.rows, dim=1), torch.split(row_places, self.rows), strict=True)
        return torch.cat([_recomputed(nearest, part, columns, near) for part, near in parts], dim=1).mean(dim=1)


def places(maps: Tensor) -> Tensor:
    """Coordinates of the positions of maps, [height * width, 2], in units of the longer side."""
    height, width = maps.shape[2:]
    axes = (torch.arange(size, device=maps.device) / max(height, width) for size in (height, width))
    return torch.cartesian_prod(*axes)


def _recomputed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    result: Tensor = checkpoint(function, *tensors, use_reentrant=False)
    return result

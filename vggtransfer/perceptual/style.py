"""StyleLoss: which maps of a VGG are active together, wherever in the picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.features.onednn import product
from vggtransfer.perceptual.feature_loss import FeatureLoss, Reduction
from vggtransfer.perceptual.layer_weights import checked_weights
from vggtransfer.perceptual.precision import LossPrecision, in_float32
from vggtransfer.perceptual.trunk import Pooling, build_trunk

# Gatys et al. 2016, section 2.2: conv1_1, ..., conv5_1, each with a fifth; rectified, as in all published code.
GATYS_LAYERS = {f"relu{block}_1": 0.2 for block in range(1, 6)}


class StyleLoss(FeatureLoss):
    """Style loss on Gram matrices (Gatys et al. 2016, equations 3 to 5).

    Of a layer with N channels and M positions, F [N, M], the Gram matrix is G = F F^T / M, and the layer's loss
    sum((G - A)^2) / (4 N^2): equation 4, with the positions divided out before, so that pictures of different sizes can
    be compared. Johnson et al. 2016 (equation 4) leave out the factor 1/4.

    F is divided by the root of N M before the product, which keeps it within the range of every type, and the product
    is in float32 under autocast as well.

    Args:
        layers: Weight of each layer; None is relu1_1 to relu5_1 with a fifth each.
        net: Architecture, or an encoder to take weights from.
        weights: As for `VGGEncoder`.
        in_channels: Channels of the pictures.
        pooling: `"max"`, or `"average"` as Gatys et al. 2016 prefer for synthesis.
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
        net: str | VGGEncoder = "vgg16",
        weights: str | Path | None = "default",
        in_channels: int = 3,
        pooling: Pooling = "max",
        reduction: Reduction = "mean",
        precision: LossPrecision = "auto",
    ) -> None:
        trunk = build_trunk(net, weights=weights, in_channels=in_channels, pooling=pooling, precision=precision)
        layer_weights = checked_weights(GATYS_LAYERS if layers is None else layers, trunk.architecture)
        super().__init__(tuple(layer_weights), trunk=trunk, reduction=reduction, same_size=False)
        self.layer_weights = layer_weights

    def remember(self, taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with in_float32(taps):
            return {name: gram_matrix(taps[name]) for name in self.layers}

    def compare(self, taps: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with in_float32(taps):
            return {
                name: weight / 4 * (gram_matrix(taps[name]) - target[name]).square().sum(dim=(1, 2))
                for name, weight in self.layer_weights.items()
            }

    def extra_repr(self) -> str:
        return f"{self.layer_weights}, {self.trunk}"


def gram_matrix(maps: Tensor) -> Tensor:
    """Returns F F^T / (N M), [batch, N, N] in float32, of maps [batch, N, height, width] with M positions."""
    positions = maps.permute(0, 2, 3, 1).flatten(1, 2).float()
    return _Gram.apply(positions * (positions.shape[1] * positions.shape[2]) ** -0.5)  # type: ignore[no-any-return]


class _Gram(torch.autograd.Function):
    """F^T F of rows F [batch, positions, channels], by the fastest product there is."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return torch.stack([product(columns, columns) for columns in rows.transpose(1, 2).contiguous()])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        both = gradient + gradient.transpose(1, 2)
        return torch.stack([product(each, square) for each, square in zip(rows, both, strict=True)])

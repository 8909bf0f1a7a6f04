"""PerceptualLoss: how far apart two pictures are in the maps of a VGG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, assert_never

from torch import Tensor

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.feature_loss import FeatureLoss, Reduction
from vggtransfer.perceptual.layer_weights import checked_weights
from vggtransfer.perceptual.precision import LossPrecision, in_float32
from vggtransfer.perceptual.trunk import Pooling, build_trunk

Distance = Literal["l1", "l2", "charbonnier"]


class PerceptualLoss(FeatureLoss):
    """Feature reconstruction loss (Johnson et al. 2016, equation 2), also called content loss.

    The sum over layers of weight * mean over channels and positions of the difference, which is |d| for `"l1"`, d^2 for
    `"l2"` (the paper's) and sqrt(d^2 + 1e-6) for `"charbonnier"` (Lai et al. 2017, section 3.3).

    A `conv*` layer is looked at before its ReLU, as its name says; libraries that run torchvision's in-place ReLU
    give the values after it.

    Args:
        layers: Weight of each layer.
        distance: How differences count.
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
        distance: Distance = "l2",
        net: str | VGGEncoder = "vgg16",
        weights: str | Path | None = "default",
        in_channels: int = 3,
        pooling: Pooling = "max",
        reduction: Reduction = "mean",
        precision: LossPrecision = "auto",
    ) -> None:
        if distance not in ("l1", "l2", "charbonnier"):
            raise OptionError(f"distance={distance} is not possible: use l1, l2 or charbonnier")
        trunk = build_trunk(net, weights=weights, in_channels=in_channels, pooling=pooling, precision=precision)
        self_weights = checked_weights({"relu3_3": 1.0} if layers is None else layers, trunk.architecture)
        super().__init__(tuple(self_weights), trunk=trunk, reduction=reduction)
        self.layer_weights = self_weights
        self.distance: Distance = distance

    def compare(self, taps: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with in_float32(taps):
            return {
                name: weight * self._mean_difference(taps[name].float() - target[name].float())
                for name, weight in self.layer_weights.items()
            }

    def extra_repr(self) -> str:
        return f"{self.layer_weights}, distance={self.distance!r}, {self.trunk}"

    def _mean_difference(self, difference: Tensor) -> Tensor:
        match self.distance:
            case "l1":
                return difference.abs().mean(dim=(1, 2, 3))
            case "l2":
                return difference.square().mean(dim=(1, 2, 3))
            case "charbonnier":
                return (difference.square() + 1e-6).sqrt().mean(dim=(1, 2, 3))
            case _ as never:
                assert_never(never)

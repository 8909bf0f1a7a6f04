"""LPIPS: how different two pictures look, by the maps of a VGG weighed to agree with people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.feature_loss import FeatureLoss, Reduction
from vggtransfer.perceptual.heads import LpipsVersion, load_lpips_heads
from vggtransfer.perceptual.layer_weights import last_activations
from vggtransfer.perceptual.precision import LossPrecision, in_float32
from vggtransfer.perceptual.stamp import Stamp
from vggtransfer.perceptual.trunk import build_trunk
from vggtransfer.perceptual.unit_difference import unit_length, weighted_difference


class LPIPS(FeatureLoss):
    """Learned Perceptual Image Patch Similarity (Zhang et al. 2018, equation 1).

    At each position of the last activation of each block, the two vectors of channels are scaled to unit length; the
    squared differences are weighed by the layer's linear head, summed over channels, averaged over positions and summed
    over layers. Pictures are in [0, 1]; `lpips` calls that `normalize=True`. Where all channels of a position are
    zero, the gradient is zero (in `lpips` it is NaN).

    Args:
        net: Architecture, or an encoder to take weights from.
        weights: As for `VGGEncoder`.
        heads: `"lpips"` for the published heads of an installed package, or a file (see `load_lpips_heads`); both are
            for vgg16 alone. None weighs all channels by 1: uncalibrated, on any architecture.
        version: `"0.1"`, or `"0.0"`, which was released first and normalises pictures by mean and deviation 0.5.
        spatial: Give maps [batch, 1, height, width] instead of values.
        in_channels: Channels of the pictures.
        reduction: `"none"` for one value per picture, or `"mean"` or `"sum"` over the batch.
        precision: Types of the trunk\'s work, see `compute_types`; `"auto"` follows autocast.

    Attributes:
        stamp: What a value depends on besides the pictures.

    Raises:
        OptionError: An argument that cannot be used.
        WeightsError: Weights or heads that cannot be found, verified or matched, or are of another kind.
    """

    def __init__(
        self,
        net: str | VGGEncoder = "vgg16",
        *,
        weights: str | Path | None = "default",
        heads: str | Path | None = "lpips",
        version: LpipsVersion = "0.1",
        spatial: bool = False,
        in_channels: int = 3,
        reduction: Reduction = "none",
        precision: LossPrecision = "auto",
    ) -> None:
        if version not in ("0.1", "0.0"):
            raise OptionError(f"version={version} is not possible: use 0.1 or 0.0")
        arch = net if isinstance(net, str) else net.architecture.name
        if heads is not None and arch != "vgg16":
            raise OptionError(f"heads={heads} were learned on vgg16, not on {arch}; use net='vgg16' or heads=None")
        loaded = None if heads is None else load_lpips_heads(heads, version=version)
        trunk = build_trunk(net, weights=weights, in_channels=in_channels, precision=precision)
        if version == "0.0":
            trunk = trunk.normalised_by(0.5, 0.5)
        super().__init__(last_activations(trunk.architecture), trunk=trunk, reduction=reduction)
        self.spatial = spatial
        for name in self.layers:
            channels = trunk.architecture.layer(name).out_channels
            head = torch.ones(channels) if loaded is None else loaded.weights[self.layers.index(name)]
            self.register_buffer(f"head_{name}", head, persistent=False)
        self.stamp = Stamp(
            metric="lpips" if loaded is not None else "lpips, uncalibrated",
            version=version,
            net=trunk.architecture.name,
            weights=trunk.origin,
            weights_digest=trunk.digest,
            heads="none" if loaded is None else loaded.origin,
            heads_digest="" if loaded is None else loaded.digest,
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.spatial:
            return self.distance_map(x, y)
        return super().forward(x, y)

    def distance_map(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns where pictures differ, [batch, 1, height, width]: each layer's map enlarged bilinearly, summed."""
        (taps, target), *_ = self._pass.inputs(x, y)
        with in_float32(taps):
            maps = self._maps(taps, target)
            size = list(x.shape[2:])
            return sum(
                (
                    F.interpolate(layer[:, None], size=size, mode="bilinear", align_corners=False)
                    for layer in maps.values()
                ),
                start=x.new_zeros(()),
            )

    def remember(self, taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with in_float32(taps):
            return {name: unit_length(taps[name].permute(0, 2, 3, 1)) for name in self.layers}

    def compare(self, taps: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with in_float32(taps):
            return {name: layer.mean(dim=(1, 2)) for name, layer in self._maps(taps, target).items()}

    def _maps(self, taps: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each layer finds at each position, [batch, height, width]."""
        found = {}
        for name in self.layers:
            maps = taps[name].permute(0, 2, 3, 1)
            head = self.get_buffer(f"head_{name}").to(maps.device)
            found[name] = weighted_difference(maps, target[name], head)
        return found

    def extra_repr(self) -> str:
        return f"{self.stamp}"

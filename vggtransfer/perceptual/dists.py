"""DISTS: how different two pictures look, where textures need not lie in the same place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.feature_loss import FeatureLoss, Reduction
from vggtransfer.perceptual.heads import load_dists_weights
from vggtransfer.perceptual.layer_weights import last_activations
from vggtransfer.perceptual.precision import LossPrecision, in_float32
from vggtransfer.perceptual.stamp import Stamp
from vggtransfer.perceptual.trunk import PICTURES, build_trunk

_C = 1e-6  # c1 and c2 of equations 6 and 7, as published


class DISTS(FeatureLoss):
    """Deep Image Structure and Texture Similarity (Ding et al. 2020, equations 3 to 8), as a distance.

    For each channel of the picture itself and of the last activation of each block, on a VGG whose poolings are L2
    poolings: the similarity of the means over all positions (texture) and of the structures (covariance over
    variances), weighed by alpha and beta. The distance is 1 minus the weighted sum: 0 for equal pictures.

    The authors compare pictures whose shorter side is 256 pixels: bring larger ones to that size before (piq does it by
    itself, without saying so).

    Args:
        net: Architecture, or an encoder to take weights from.
        weights: As for `VGGEncoder`.
        heads: `"DISTS_pytorch"` for the published alpha and beta of an installed package, or a file (see
            `load_dists_weights`); both are for vgg16 alone. None weighs all channels alike, on any architecture.
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
        heads: str | Path | None = "DISTS_pytorch",
        in_channels: int = 3,
        reduction: Reduction = "none",
        precision: LossPrecision = "auto",
    ) -> None:
        arch = net if isinstance(net, str) else net.architecture.name
        if heads is not None and (arch != "vgg16" or in_channels != 3):
            raise OptionError(
                f"heads={heads} were learned on vgg16 and RGB, not on {arch} and {in_channels} channels; use "
                "net='vgg16' or heads=None"
            )
        loaded = None if heads is None else load_dists_weights(heads)
        trunk = build_trunk(net, weights=weights, in_channels=in_channels, pooling="hanning", precision=precision)
        layers = last_activations(trunk.architecture)
        super().__init__((PICTURES, *layers), trunk=trunk, reduction=reduction)
        channels = [in_channels, *(trunk.architecture.layer(name).out_channels for name in layers)]
        parts = [torch.ones(count) for count in channels * 2] if loaded is None else list(loaded.weights)
        total = torch.cat(parts).sum()
        for kind, half in (("alpha", parts[: len(channels)]), ("beta", parts[len(channels) :])):
            for name, part in zip(self.layers, half, strict=True):
                self.register_buffer(f"{kind}_{name}", part / total, persistent=False)
        self.stamp = Stamp(
            metric="dists" if loaded is not None else "dists, uncalibrated",
            version="1",
            net=trunk.architecture.name,
            weights=trunk.origin,
            weights_digest=trunk.digest,
            heads="none" if loaded is None else loaded.origin,
            heads_digest="" if loaded is None else loaded.digest,
        )

    def compare(self, taps: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        with in_float32(taps):
            for name in self.layers:
                x, y = taps[name].float(), target[name].float()
                alpha, beta = (self.get_buffer(f"{kind}_{name}").to(x.device) for kind in ("alpha", "beta"))
                texture, structure = similarities(x, y)
                # 1 = sum of alpha and beta over all layers, so each layer's share of it is what these say.
                found[name] = (alpha * (1 - texture) + beta * (1 - structure)).sum(dim=1)
        return found

    def extra_repr(self) -> str:
        return f"{self.stamp}"


def similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of texture and of structure, equations 6 and 7, [batch, channels] each.

    Args:
        x: Maps [batch, channels, height, width].
        y: Maps to compare them with.
    """
    x_mean, y_mean = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))
    x_centred, y_centred = x - x_mean[:, :, None, None], y - y_mean[:, :, None, None]
    x_variance, y_variance = x_centred.square().mean(dim=(2, 3)), y_centred.square().mean(dim=(2, 3))
    covariance = (x_centred * y_centred).mean(dim=(2, 3))
    texture = (2 * x_mean * y_mean + _C) / (x_mean.square() + y_mean.square() + _C)
    structure = (2 * covariance + _C) / (x_variance + y_variance + _C)
    return texture, structure

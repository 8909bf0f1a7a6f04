"""The frozen VGG trunk that losses share: built once, run once per picture."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError

Pooling = Literal["max", "average", "hanning"]
Taps = dict[str, Tensor]
PICTURES = "pictures"


class LossTrunk:
    """A frozen encoder as losses see it.

    Deliberately no `nn.Module`: a loss inside a model would otherwise add a VGG to that model's `state_dict` and
    parameters. Nothing in it ever trains. Weights follow the pictures to their device.

    Args:
        encoder: Where the weights come from; copied, so what happens to it afterwards is not seen here.
        pooling: `"max"` as VGG was trained; `"average"` as Gatys et al. 2016, section 2, prefer for synthesis;
            `"hanning"` is the L2 pooling with a Hanning window of DISTS (Ding et al. 2020, equation 3).

    Raises:
        OptionError: An encoder with `output_stride` below 32, or an unknown pooling.
    """

    def __init__(self, encoder: VGGEncoder, *, pooling: Pooling = "max") -> None:
        if encoder.output_stride != 32:
            raise OptionError(f"net has output_stride={encoder.output_stride}; losses are defined on output_stride=32")
        if pooling not in ("max", "average", "hanning"):
            raise OptionError(f"pooling={pooling} is not possible: use max, average or hanning")
        self.architecture = encoder.architecture
        self.in_channels = encoder.mean.shape[1]
        self.origin = encoder.origin
        self.pooling = pooling
        self._encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.shape_for = encoder.input_shape

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights and normalisation: the same for trunks that differ in their pooling at most."""
        return weights_digest(self._encoder.state_dict())

    @property
    def identity(self) -> tuple[str, str]:
        """What two trunks share that give equal maps."""
        return self.digest, self.pooling

    def normalised_by(self, mean: float, std: float) -> LossTrunk:
        """A trunk with the same weights and another normalisation of its pictures."""
        other = LossTrunk(self._encoder, pooling=self.pooling)
        other._encoder.mean.fill_(mean)
        other._encoder.std.fill_(std)
        return other

    def __str__(self) -> str:
        return f"{self.architecture.name} ({self.origin})"

    def taps(self, pictures: Tensor, layers: Iterable[str]) -> Taps:
        """Returns the named maps [batch, channels, height / stride, width / stride] of pictures in [0, 1].

        `"pictures"` names the pictures themselves.
        """
        wanted = set(layers)
        taps = {PICTURES: pictures}
        self._encoder.to(pictures.device)
        x = (pictures.float() - self._encoder.mean) / self._encoder.std
        for name, layer in self._encoder.trunk.items():
            if wanted <= taps.keys():
                break
            if isinstance(layer, nn.MaxPool2d) and self.pooling == "hanning":
                x = hanning_pooling(x)
            elif isinstance(layer, nn.MaxPool2d) and self.pooling == "average":
                x = F.avg_pool2d(x, 2)
            else:
                x = layer(x)
            if name in wanted:
                taps[name] = x
        return taps


def hanning_pooling(x: Tensor) -> Tensor:
    """L2 pooling by 2 with a 3x3 Hanning window: sqrt(window * x^2), Ding et al. 2020, equation 3."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    window = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def build_trunk(
    net: str | VGGEncoder, *, weights: str | Path | None, in_channels: int, pooling: Pooling = "max"
) -> LossTrunk:
    """Builds the trunk of a loss.

    Args:
        net: An architecture's name, or an encoder, whose weights and normalisation are then taken.
        weights: As for `VGGEncoder`; `"default"` where `net` is an encoder.
        in_channels: As for `VGGEncoder`; where `net` is an encoder, what it has.
        pooling: As for `LossTrunk`.

    Raises:
        OptionError: Both an encoder and weights, or another number of channels than the encoder's.
        WeightsError: Weights that cannot be found, verified or matched.
    """
    if isinstance(net, str):
        encoder = VGGEncoder(net, weights=weights, in_channels=in_channels, unfreeze="none")
        return LossTrunk(encoder, pooling=pooling)
    if weights != "default":
        raise OptionError(f"weights={weights}: net is an encoder, which has its own; leave weights out")
    if net.mean.shape[1] != in_channels:
        raise OptionError(f"in_channels={in_channels}, but net is an encoder for {net.mean.shape[1]} channels")
    return LossTrunk(net, pooling=pooling)

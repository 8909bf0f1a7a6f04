"""The frozen VGG trunk that losses share: built once, run once per picture."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vggtransfer.encoder.input_check import InputShape
from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.features.frozen_trunk import Convolution, folded_steps
from vggtransfer.perceptual.convolution import FrozenConvolution
from vggtransfer.perceptual.lean_autograd import LeanTrunk
from vggtransfer.perceptual.precision import LossPrecision, compute_types
from vggtransfer.perceptual.steps import (
    AveragePoolStep,
    ConvolutionStep,
    MaxPoolStep,
    RecomputedStep,
    ReluStep,
    ScaleStep,
    Step,
    hanning_pooling,
)

Pooling = Literal["max", "average", "hanning"]
Taps = dict[str, Tensor]
PICTURES = "pictures"


class FrozenWeights:
    """The weights of an encoder at one moment, with every form of them that was needed so far.

    Args:
        encoder: Copied; what happens to it afterwards is not seen here.

    Raises:
        OptionError: An encoder with `output_stride` below 32.
    """

    def __init__(self, encoder: VGGEncoder) -> None:
        if encoder.output_stride != 32:
            raise OptionError(f"net has output_stride={encoder.output_stride}; losses are defined on output_stride=32")
        self._encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        self._convolutions: dict[tuple[str, str], FrozenConvolution] = {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all weights: the same for the same weights in any file or type of encoder."""
        tensors = self._encoder.trunk.state_dict()
        return weights_digest({key: value for key, value in tensors.items() if not key.endswith("_tracked")})

    def steps(self, layers: Iterable[str], pooling: Pooling) -> list[tuple[str, Step]]:
        """What leads to the deepest of some layers, each step under the name of its last layer."""
        found = folded_steps(self._encoder, list(layers))
        before = ["", *(name for name, _ in found[:-1])]
        return [
            (name, self._step(start, name, module, pooling))
            for start, (name, module) in zip(before, found, strict=True)
        ]

    def _step(self, start: str, name: str, module: nn.Module, pooling: Pooling) -> Step:
        match module:
            case Convolution():
                # The same layers joined in the same way are the same convolution, whatever the taps.
                if (start, name) not in self._convolutions:
                    self._convolutions[start, name] = FrozenConvolution(module.weight, module.bias, relu=module.relu)
                return ConvolutionStep(self._convolutions[start, name])
            case nn.MaxPool2d():
                if pooling == "hanning":
                    return RecomputedStep(hanning_pooling)
                return MaxPoolStep() if pooling == "max" else AveragePoolStep()
            case nn.ReLU():
                return ReluStep()
            case nn.BatchNorm2d():
                assert module.running_var is not None
                assert module.running_mean is not None
                scale = module.weight * (module.running_var + module.eps).rsqrt()
                return ScaleStep(scale, module.bias - scale * module.running_mean)
        return RecomputedStep(lambda x: module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class LossTrunk:
    """A frozen encoder as losses see it.

    Deliberately no `nn.Module`: a loss inside a model would otherwise add a VGG to that model's `state_dict` and
    parameters. Nothing in it ever trains. Weights follow the pictures to their device.

    For a gradient it keeps one bit per activation and three per pooled value, a thirtieth of what torch keeps. On CPUs
    it keeps further forms of its weights, some 0.5 GB for VGG16 in float32.

    Args:
        encoder: Where the weights come from; copied, so what happens to it afterwards is not seen here.
        pooling: `"max"` as VGG was trained; `"average"` as Gatys et al. 2016, section 2, prefer for synthesis;
            `"hanning"` is the L2 pooling with a Hanning window of DISTS (Ding et al. 2020, equation 3).
        precision: See `compute_types`.

    Raises:
        OptionError: An encoder with `output_stride` below 32, an unknown pooling or precision.
    """

    def __init__(self, encoder: VGGEncoder, *, pooling: Pooling = "max", precision: LossPrecision = "auto") -> None:
        if pooling not in ("max", "average", "hanning"):
            raise OptionError(f"pooling={pooling} is not possible: use max, average or hanning")
        compute_types(precision, torch.device("cpu"))
        self.architecture = encoder.architecture
        self.in_channels = encoder.mean.shape[1]
        self.origin = encoder.origin
        self.pooling: Pooling = pooling
        self.precision: LossPrecision = precision
        self.weights = FrozenWeights(encoder)
        mean, std = (encoder.mean, encoder.std) if encoder.normalize else (torch.zeros(1), torch.ones(1))
        self._mean, self._std = (tensor.detach().flatten().clone() for tensor in (mean, std))
        self._shapes = {name: encoder.input_shape([name]) for name in encoder.architecture.layer_names}
        self._steps: dict[frozenset[str], list[tuple[str, Step]]] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of all weights."""
        return self.weights.digest

    @property
    def identity(self) -> Hashable:
        """What two trunks share that give equal maps."""
        return self.digest, self.pooling, self.precision, *self._mean.tolist(), *self._std.tolist()

    def normalised_by(self, mean: float, std: float) -> LossTrunk:
        """A trunk with the same weights and another normalisation of its pictures."""
        other = copy.copy(self)
        other._mean, other._std = torch.full_like(self._mean, mean), torch.full_like(self._std, std)
        return other

    def shape_for(self, layers: Iterable[str]) -> InputShape:
        """What pictures must be to reach the deepest of some layers."""
        return max((self._shapes[name] for name in layers), key=lambda shape: shape.minimum)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def taps(self, pictures: Tensor, layers: Iterable[str]) -> Taps:
        """Returns the named maps [batch, channels, height / stride, width / stride] of pictures in [0, 1].

        `"pictures"` names the pictures themselves. Other maps are in the type that the precision chooses.
        """
        wanted = frozenset(layers) - {PICTURES}
        steps = self._steps_to(wanted)
        types = compute_types(self.precision, pictures.device)
        with torch.autocast(pictures.device.type, enabled=False):
            mean, std = self._mean.to(pictures.device), self._std.to(pictures.device)
            x = (pictures.permute(0, 2, 3, 1).float() - mean) / std
            if torch.is_grad_enabled() and x.requires_grad:
                x = x.to(types.pictures).contiguous()
                maps = LeanTrunk.apply(x, steps, wanted, types.gradient)
            else:
                maps = _taps(x.to(types.target).contiguous(), steps, wanted)
        names = [name for name, _ in steps if name in wanted]
        return {PICTURES: pictures} | {name: each.permute(0, 3, 1, 2) for name, each in zip(names, maps, strict=True)}

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_steps": {}}  # made again; some hold functions, which cannot be pickled

    def _steps_to(self, layers: frozenset[str]) -> list[tuple[str, Step]]:
        if layers not in self._steps:
            self._steps[layers] = self.weights.steps(layers, self.pooling)
        return self._steps[layers]

    def __str__(self) -> str:
        return f"{self.architecture.name} ({self.origin})"


def build_trunk(
    net: str | VGGEncoder,
    *,
    weights: str | Path | None,
    in_channels: int,
    pooling: Pooling = "max",
    precision: LossPrecision = "auto",
) -> LossTrunk:
    """Builds the trunk of a loss.

    Args:
        net: An architecture's name, or an encoder, whose weights and normalisation are then taken.
        weights: As for `VGGEncoder`; `"default"` where `net` is an encoder.
        in_channels: As for `VGGEncoder`; where `net` is an encoder, what it has.
        pooling: As for `LossTrunk`.
        precision: As for `LossTrunk`.

    Raises:
        OptionError: Both an encoder and weights, or another number of channels than the encoder's.
        WeightsError: Weights that cannot be found, verified or matched.
    """
    if isinstance(net, str):
        encoder = VGGEncoder(net, weights=weights, in_channels=in_channels, unfreeze="none")
        return LossTrunk(encoder, pooling=pooling, precision=precision)
    if weights != "default":
        raise OptionError(f"weights={weights}: net is an encoder, which has its own; leave weights out")
    if net.mean.shape[1] != in_channels:
        raise OptionError(f"in_channels={in_channels}, but net is an encoder for {net.mean.shape[1]} channels")
    return LossTrunk(net, pooling=pooling, precision=precision)


def _taps(x: Tensor, steps: Iterable[tuple[str, Step]], layers: frozenset[str]) -> list[Tensor]:
    found = []
    for name, step in steps:
        x = step.forward(x)
        if name in layers:
            found.append(x)
    return found

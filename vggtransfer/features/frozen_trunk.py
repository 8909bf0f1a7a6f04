"""A trunk that only answers: nothing trains, so BatchNorm is folded away and every weight is converted once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vggtransfer.data.loader import network_input
from vggtransfer.encoder.layers import FreezableBatchNorm2d
from vggtransfer.encoder.precision import prefers_channels_last
from vggtransfer.encoder.vgg import VGGEncoder, checked_layers
from vggtransfer.features.onednn import PackedConvolution
from vggtransfer.features.winograd import WinogradConvolution, saves_time

_CACHE_BYTES = 16 * 2**20  # half of a small server's last-level cache; measured, not critical


class FrozenTrunk:
    """The taps of an encoder in evaluation mode, computed faster than by the encoder itself.

    BatchNorm is folded into the convolution before it, exactly but for rounding (Jacob et al. 2018, section 3.2);
    weights are converted to the compute type once instead of in every batch, as autocast would; wide convolutions save
    multiplications on CPUs (`vggtransfer.features.winograd`); activations are overwritten where nobody needs them; no
    layer past the deepest tap runs. The encoder is copied and left as it is: what happens to it afterwards is not seen
    here.

    Args:
        encoder: The trunk and its normalisation.
        layers: Names of the taps.
        device: Where to compute.
        compute_type: `torch.float32`, `torch.bfloat16` or `torch.float16`; normalisation is in float32 in any case.

    Attributes:
        layers: Names of the taps.
        device: Where it computes.
        steps: What is computed one after the other, each under the name of its last layer.

    Raises:
        OptionError: A name that the encoder does not have, one named twice, or none at all.
    """

    def __init__(
        self, encoder: VGGEncoder, layers: Sequence[str], *, device: torch.device, compute_type: torch.dtype
    ) -> None:
        self.layers = checked_layers(layers, encoder.architecture)
        self.device = device
        self._compute_type = compute_type
        self._channels_last = prefers_channels_last(device)
        mean, std = (encoder.mean, encoder.std) if encoder.normalize else (torch.zeros(1), torch.ones(1))
        self._mean, self._std = mean.detach().clone().to(device), std.detach().clone().to(device)
        self._shape = encoder.input_shape(self.layers)
        self._width = encoder.architecture.layers[0].out_channels
        with torch.no_grad():
            self.steps = [(name, self._converted(step)) for name, step in folded_steps(encoder, self.layers)]

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """Returns one map [batch, channels, height / stride, width / stride] in the compute type per tap.

        Args:
            pictures: [batch, channels, height, width], uint8, or float in [0, 1]; on any device.

        Raises:
            InputError: Pictures of the wrong rank, channels or size.
        """
        self._shape.check(pictures)
        with torch.inference_mode():
            parts = [self._run(part) for part in torch.split(pictures, self._at_once(pictures))]
            return {name: joined([part[name] for part in parts]) for name in self.layers}

    def _run(self, pictures: Tensor) -> dict[str, Tensor]:
        x = self.normalised(pictures)
        taps: dict[str, Tensor] = {}
        for name, step in self.steps:
            x = step(x)
            if name in self.layers:
                taps[name] = x
        return taps

    def _at_once(self, pictures: Tensor) -> int:
        if self.device.type != "cpu":
            return max(1, len(pictures))
        return pictures_at_once(pictures, width=self._width, value_bytes=self._compute_type.itemsize)

    def normalised(self, pictures: Tensor) -> Tensor:
        """Returns what the first layer sees of pictures, in the compute type."""
        x = network_input(pictures, self.device, channels_last=self._channels_last)
        return x.sub(self._mean).div_(self._std).to(self._compute_type)

    def _converted(self, step: nn.Module) -> nn.Module:
        if self.device.type == "cpu" and type(step) is nn.MaxPool2d:
            return HalvingMaxPool()
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        # A BatchNorm that could not be folded takes its input in any type, and needs its own precision.
        own = self._compute_type if isinstance(step, Convolution) else None
        return cast(nn.Module, step.to(self.device, own, memory_format=layout))  # type: ignore[call-overload]


class Convolution(nn.Module):
    """A convolution with everything up to its ReLU, if that is to be part of it."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, *, relu: bool) -> None:
        super().__init__()
        weight = convolution.weight
        bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            # In double precision, and on the CPU, because Apple GPUs have none.
            mean, variance, scale, shift, weight, bias = (
                tensor.detach().cpu().double()
                for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias, weight, bias)
            )
            weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)
        self.register_buffer("weight", weight.detach().to(torch.float32, copy=True))
        self.register_buffer("bias", bias.detach().to(torch.float32, copy=True))
        self.padding = cast(tuple[int, int], convolution.padding)
        self.dilation = cast(tuple[int, int], convolution.dilation)
        self.relu = relu
        self._packed: PackedConvolution | None = None
        self._winograd: WinogradConvolution | None = None

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        # Chosen by the size of one picture, so that no picture's numbers depend on those beside it.
        if self.padding == self.dilation == (1, 1) and saves_time(self.weight, x[:1]):
            return self._by_winograd(x)
        if self._packed is None:
            self._packed = PackedConvolution(
                self.weight, self.bias, padding=self.padding, dilation=self.dilation, relu=self.relu
            )
        return self._packed(x)

    def _by_winograd(self, x: Tensor) -> Tensor:
        if self._winograd is None:
            self._winograd = WinogradConvolution(self.weight, self.bias, compute_type=x.dtype, relu=self.relu)
        return self._winograd(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def __getstate__(self) -> dict[str, object]:
        # These cannot be copied, and fit only the machine that made them.
        return {**self.__dict__, "_packed": None, "_winograd": None}


class HalvingMaxPool(nn.Module):
    """2x2 max pooling as two comparisons: on CPUs faster than torch's own, which also refuses most uint8 maps."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        columns = torch.maximum(x[..., :height, 0:width:2], x[..., :height, 1:width:2])
        return torch.maximum(columns[:, :, 0::2], columns[:, :, 1::2])


def pictures_at_once(pictures: Tensor, *, width: int, value_bytes: int) -> int:
    """How many pictures to compute together on a CPU, so that the largest maps stay in its cache.

    Args:
        pictures: [batch, channels, height, width].
        width: Channels of the first block, whose maps are the largest.
        value_bytes: Size of one value.
    """
    maps = 2 * width * pictures.shape[2] * pictures.shape[3] * value_bytes  # what a layer reads and what it writes
    return max(1, _CACHE_BYTES // maps, torch.get_num_threads() // 4)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenates batches; a single one is returned as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def folded_steps(encoder: VGGEncoder, taps: Sequence[str]) -> list[tuple[str, nn.Module]]:
    """Joins the layers of a trunk, up to the deepest tap, as far as no tap has to be seen in between.

    Returns:
        Modules that share nothing with the encoder, each under the name of its last layer.
    """
    names = [layer.name for layer in encoder.architecture.layers]
    names = names[: max(names.index(name) for name in taps) + 1]
    steps: list[tuple[str, nn.Module]] = []
    position = 0
    while position < len(names):
        name = names[position]
        layer = encoder.trunk[name]
        position += 1
        if not isinstance(layer, nn.Conv2d):
            steps.append((name, copy.deepcopy(layer).eval()))
            continue
        norm = None
        if _continues(encoder, names, position, taps, FreezableBatchNorm2d):
            norm = cast(nn.BatchNorm2d, encoder.trunk[names[position]])
            position += 1
        relu = _continues(encoder, names, position, taps, nn.ReLU)
        position += relu
        steps.append((names[position - 1], Convolution(layer, norm, relu=relu)))
    return steps


def _continues(
    encoder: VGGEncoder, names: Sequence[str], position: int, taps: Sequence[str], kind: type[nn.Module]
) -> bool:
    """Whether the layer at a position is of a kind and the one before it is not a tap."""
    return (
        position < len(names) and names[position - 1] not in taps and isinstance(encoder.trunk[names[position]], kind)
    )

"""A trunk in 8-bit integers, calibrated on pictures: the fastest one on CPUs that multiply these."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vggtransfer.encoder.vgg import VGGEncoder, checked_layers
from vggtransfer.errors import OptionError, WeightsError
from vggtransfer.features.frozen_trunk import Convolution, FrozenTrunk, HalvingMaxPool, joined, pictures_at_once

_CPU = torch.device("cpu")
_BINS = 2048
_LEVELS = 255


class QuantizedTrunk:
    """The taps of an encoder in evaluation mode, with convolutions of 8-bit integers.

    Post-training quantisation (Krishnamoorthi 2018, section 3; Jacob et al. 2018): weights symmetric with one scale per
    output channel; activations, which are not negative behind a ReLU, in 256 levels from 0 with one scale per layer,
    chosen for the least squared error over the calibration pictures. Rounding the weights shifts the mean of a channel;
    the bias makes up for it (Nagel et al. 2019, section 4.2). Pixels are integers already; normalisation becomes part
    of the first convolution. What the deepest convolution gives is float32.

    Args:
        encoder: The trunk and its normalisation; left as it is.
        layers: Names of the taps.
        calibration: Batches of pictures like those to come, uint8 [batch, channels, height, width].

    Attributes:
        layers: Names of the taps.
        device: The CPU.

    Raises:
        OptionError: A wrong tap, no calibration picture, or a machine without fast 8-bit arithmetic.
        WeightsError: The encoder gives NaN.
    """

    def __init__(self, encoder: VGGEncoder, layers: Sequence[str], calibration: Iterable[Tensor]) -> None:
        check_machine()
        self.layers = checked_layers(layers, encoder.architecture)
        self.device = _CPU
        self._shape = encoder.input_shape(self.layers)
        self._width = encoder.architecture.layers[0].out_channels
        exact = FrozenTrunk(encoder, self.layers, device=_CPU, compute_type=torch.float32)
        pictures = list(calibration)
        if not pictures:
            raise OptionError("precision=int8 needs at least one picture to be calibrated on")
        inputs = _inputs(exact, pictures)
        scales = {position: values.best_scale() for position, values in inputs.items() if position}
        self._border, first = None, None
        if encoder.normalize and isinstance(exact.steps[0][1], Convolution):
            self._border = (encoder.mean * 255).round().to(torch.uint8)
            first = _on_pixels(exact.steps[0][1], encoder.mean, encoder.std)
        self._normalised = exact.normalised
        self._steps: list[tuple[str, nn.Module | _IntegerConvolution]] = []
        for position, (name, step) in enumerate(exact.steps):
            output = _next_scale(exact.steps, position, scales)
            if position == 0 and first is not None:
                pixels = 255 * (inputs[0].mean() * encoder.std.flatten() + encoder.mean.flatten())
                self._steps.append((name, _IntegerConvolution(first, pixels, 1.0, output)))
            elif position and isinstance(step, Convolution):
                mean = inputs[position].mean()
                self._steps.append((name, _IntegerConvolution(step, mean, scales[position], output)))
            else:
                self._steps.append((name, step))

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """Returns one map [batch, channels, height / stride, width / stride] in float32 per tap.

        Args:
            pictures: [batch, channels, height, width], uint8, or float in [0, 1], which is rounded to 256 levels.

        Raises:
            InputError: Pictures of the wrong rank, channels or size.
        """
        self._shape.check(pictures)
        with torch.inference_mode():
            at_once = pictures_at_once(pictures, width=self._width, value_bytes=1)
            parts = [self._run(part) for part in torch.split(pictures, at_once)]
            return {name: joined([part[name] for part in parts]) for name in self.layers}

    def _run(self, pictures: Tensor) -> dict[str, Tensor]:
        taps: dict[str, Tensor] = {}
        # The scale of integers; 0 for floats.
        x, scale = (self._normalised(pictures), 0.0) if self._border is None else (self._framed(pictures), 1.0)
        for name, step in self._steps:
            if isinstance(step, _IntegerConvolution):
                x, scale = step(x if scale else _quantized(x, step.input_scale)), step.output_scale
            elif scale and isinstance(step, HalvingMaxPool):
                x = step(x)
            else:
                x, scale = step(x * scale if scale else x), 0.0
            if name in self.layers:
                taps[name] = x * scale if scale else x
        return taps

    def _framed(self, pictures: Tensor) -> Tensor:
        """Pictures with a border of the mean colour, which is what padding with zeros behind normalisation means."""
        assert self._border is not None
        pixels = pictures if pictures.dtype == torch.uint8 else (pictures * 255).round().clamp(0, 255).to(torch.uint8)
        count, channels, height, width = pixels.shape
        framed = self._border.expand(count, channels, height + 2, width + 2).contiguous(
            memory_format=torch.channels_last
        )
        framed[:, :, 1:-1, 1:-1] = pixels
        return framed


class _IntegerConvolution:
    """A convolution on integers, with its ReLU; `output_scale` is 0 if it gives float32."""

    def __init__(self, convolution: Convolution, input_mean: Tensor, input_scale: float, output_scale: float) -> None:
        weight = convolution.weight
        self.input_scale, self.output_scale = input_scale, output_scale
        self._weight_scales = weight.abs().amax(dim=(1, 2, 3)).clamp_min(1e-12) / 127
        levels = (weight / self._weight_scales.view(-1, 1, 1, 1)).round().to(torch.int8)
        rounding = levels * self._weight_scales.view(-1, 1, 1, 1) - weight
        self._bias = convolution.bias - rounding.sum(dim=(2, 3)) @ input_mean
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._padding, self._dilation = list(convolution.padding), list(convolution.dilation)
        self._activation = "relu" if convolution.relu else "none"
        self._weight = torch.ops.onednn.qconv_prepack(
            levels, self._weight_scales, input_scale, 0, [1, 1], self._padding, self._dilation, 1, None
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Turns uint8 [batch, channels, height, width] into uint8 or float32."""
        return cast(
            Tensor,
            torch.ops.onednn.qconv2d_pointwise(
                x,
                self.input_scale,
                0,
                self._weight,
                self._weight_scales,
                self._zeros,
                self._bias,
                [1, 1],
                self._padding,
                self._dilation,
                1,
                self.output_scale or 1.0,
                0,
                torch.uint8 if self.output_scale else torch.float32,
                self._activation,
                [None],
                "",
            ),
        )


def check_machine() -> None:
    """Finds out whether 8-bit integers are of any use here.

    Raises:
        OptionError: They are not; older CPUs would also overflow in between.
    """
    if not (torch._C._has_mkldnn and torch.cpu._is_vnni_supported()):
        raise OptionError("precision=int8 needs an x86 CPU with VNNI instructions (since 2019); use precision=auto")


def _quantized(x: Tensor, scale: float) -> Tensor:
    return (x / scale).round_().clamp_(0, _LEVELS).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _on_pixels(convolution: Convolution, mean: Tensor, std: Tensor) -> Convolution:
    """The convolution of pixels 0 to 255 that answers as one of normalised pixels does; it needs a border."""
    result = copy.deepcopy(convolution)
    weight = convolution.weight / std
    result.bias.copy_(convolution.bias - (weight * mean).sum(dim=(1, 2, 3)))
    result.weight.copy_(weight / 255)
    result.padding = (0, 0)
    return result


def _chain(steps: Sequence[tuple[str, nn.Module]], position: int) -> int | None:
    """Position of the convolution behind another one with ReLU, if nothing but poolings lies between."""
    step = steps[position][1]
    if not isinstance(step, Convolution) or not step.relu:
        return None
    following = position + 1
    while following < len(steps) and isinstance(steps[following][1], HalvingMaxPool):
        following += 1
    return following if following < len(steps) and isinstance(steps[following][1], Convolution) else None


def _next_scale(steps: Sequence[tuple[str, nn.Module]], position: int, scales: Mapping[int, float]) -> float:
    """The input scale of the next convolution of the chain; 0 where floats are needed."""
    following = _chain(steps, position)
    return 0.0 if following is None else scales[following]


def _inputs(trunk: FrozenTrunk, pictures: Sequence[Tensor]) -> dict[int, _Values]:
    """What the convolutions see, by position among the steps."""
    seen: dict[int, _Values] = {}
    with torch.inference_mode():
        # One by one: the statistics do not depend on the batches, and large maps do not pile up.
        for picture in (batch[number : number + 1] for batch in pictures for number in range(len(batch))):
            x = trunk.normalised(picture)
            for position, (_, step) in enumerate(trunk.steps):
                if isinstance(step, Convolution):
                    seen.setdefault(position, _Values()).add(x)
                x = step(x)
    return seen


class _Values:
    """How often values from 0 on occur, in bins whose range doubles as larger ones come; and the channels' means."""

    def __init__(self) -> None:
        self._counts = torch.zeros(_BINS, dtype=torch.float64)
        self._top = 0.0
        self._sums: Tensor | float = 0.0
        self._places = 0

    def add(self, maps: Tensor) -> None:
        """Counts the values of maps [batch, channels, height, width]."""
        if not maps.isfinite().all():
            raise WeightsError("precision=int8: the encoder gives NaN or infinity; its weights are damaged")
        self._sums = self._sums + maps.sum(dim=(0, 2, 3), dtype=torch.float64)
        self._places += maps.numel() // maps.shape[1]
        top = maps.max().item()
        if self._top == 0:
            self._top = max(top, 1e-6)
        while top > self._top:
            self._counts = torch.cat([self._counts.view(-1, 2).sum(dim=1), torch.zeros(_BINS // 2)])
            self._top *= 2
        self._counts += torch.histc(maps, _BINS, 0, self._top)

    def mean(self) -> Tensor:
        """Mean of each channel, float32 [channels]."""
        assert isinstance(self._sums, Tensor)
        return (self._sums / self._places).to(torch.float32)

    def best_scale(self) -> float:
        """Step of 256 levels from 0 with the least squared error: of rounding inside, of clipping beyond."""
        width = self._top / _BINS
        centres = (torch.arange(_BINS, dtype=torch.float64) + 0.5) * width
        best = (torch.inf, self._top)
        for limit in (torch.linspace(0.1, 1.0, 91, dtype=torch.float64) * self._top).tolist():
            beyond = centres > limit
            rounding = (limit / _LEVELS) ** 2 / 12 * self._counts[~beyond].sum().item()
            clipping = (self._counts[beyond] * (centres[beyond] - limit).square()).sum().item()
            best = min(best, (rounding + clipping, limit))
        return best[1] / _LEVELS

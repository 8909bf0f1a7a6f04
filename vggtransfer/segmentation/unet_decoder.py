"""The expanding path of a U-Net, without upsampled maps and without concatenations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.errors import OptionError
from vggtransfer.segmentation.recomputation import convolved_activation
from vggtransfer.segmentation.upsampling import upsampled_convolution

Normalization = Literal["batch", "none"]

_STAGES = 5
_LEAST_CHANNELS = 16


class UNetDecoder(nn.Module):
    """From the taps of an encoder to scores at the resolution of the first one, or at twice that.

    Args:
        encoder_channels: Channels of the taps, from the finest to the coarsest. With six of them, all stages have a
            skip; with five, the last stage has none.
        classes: Number of scores per pixel.
        decoder_channels: Channels after each of the five stages; None: see `VGGUNet`.
        normalization: `"batch"` or `"none"`, see `VGGUNet`.

    Raises:
        OptionError: Numbers that cannot be used.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        *,
        classes: int,
        decoder_channels: Sequence[int] | None = None,
        normalization: Normalization = "batch",
    ) -> None:
        super().__init__()
        if normalization not in ("batch", "none"):
            raise OptionError(f"normalization='{normalization}' is not possible: use 'batch' or 'none'")
        *skips, deepest = encoder_channels
        if decoder_channels is None:
            decoder_channels = [max(_LEAST_CHANNELS, deepest // 2 ** (stage + 1)) for stage in range(_STAGES)]
        if len(decoder_channels) != _STAGES or min(decoder_channels) < 1:
            raise OptionError(
                f"decoder_channels={list(decoder_channels)} is not possible: give {_STAGES} of at least 1"
            )
        self.center = nn.Sequential(*(ConvolutionBlock(deepest, deepest, normalization) for _ in range(2)))
        self.stages = nn.ModuleList()
        channels = deepest
        for stage, width in enumerate(decoder_channels):
            skip = skips[-1 - stage] if stage < len(skips) else 0
            self.stages.append(UNetStage(channels, skip, width, normalization))
            channels = width
        self.head = nn.Conv2d(channels, classes, 3, padding=1)
        nn.init.xavier_uniform_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        self._taps = len(encoder_channels)

    def keep(self, position: int, tap: Tensor) -> Tensor:
        """See `vggtransfer.segmentation.segmenter.Decoder`."""
        stage = self._taps - 2 - position
        kept: Tensor = self.center(tap) if stage < 0 else self.stages[stage].join.of_skip(tap)  # type: ignore[union-attr, operator]
        return kept

    def join(self, kept: list[Tensor]) -> Tensor:
        """See `vggtransfer.segmentation.segmenter.Decoder`."""
        x = kept.pop()
        for stage in self.stages:
            x = stage(x, kept.pop() if kept else None)
        scores: Tensor = self.head(x)
        return scores


class UNetStage(nn.Module):
    """Doubles the resolution, takes in what an encoder's map has to say, and convolves once more.

    While it trains it keeps, of what lies between its two convolutions, only the result of the first.
    """

    def __init__(self, channels: int, skip_channels: int, out_channels: int, normalization: Normalization) -> None:
        super().__init__()
        self.join = JoiningBlock(channels, skip_channels, out_channels, normalization)
        self.refine = ConvolutionBlock(out_channels, out_channels, normalization)

    def forward(self, x: Tensor, of_skip: Tensor | None) -> Tensor:
        refined = convolved_activation(self.join(x, of_skip), self.join.norm, self.refine.conv)
        return F.relu_(self.refine.norm(refined))


class ConvolutionBlock(nn.Module):
    """A 3x3 convolution, BatchNorm if wanted, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, normalization: Normalization) -> None:
        super().__init__()
        self.conv = _convolution(in_channels, out_channels, inputs=in_channels, bias=normalization == "none")
        self.norm = _norm(out_channels, normalization)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.norm(self.conv(x)))


class JoiningBlock(nn.Module):
    """A 3x3 convolution of the concatenation of an upsampled map and a skip, without making either.

    The convolution of a concatenation is the sum of the convolutions of its parts. That of the skip is wanted as soon
    as the skip is there, and has `out_channels` channels: in a VGG16's U-Net a quarter of the skip's. `norm` belongs
    behind it, but is called by the stage.
    """

    def __init__(self, channels: int, skip_channels: int, out_channels: int, normalization: Normalization) -> None:
        super().__init__()
        inputs = channels + skip_channels
        self.below = _convolution(channels, out_channels, inputs=inputs, bias=normalization == "none")
        self.skip = _convolution(skip_channels, out_channels, inputs=inputs, bias=False) if skip_channels else None
        self.norm = _norm(out_channels, normalization)

    def of_skip(self, skip: Tensor) -> Tensor:
        """Convolves the skip alone."""
        assert self.skip is not None
        convolved: Tensor = self.skip(skip)
        return convolved

    def forward(self, x: Tensor, of_skip: Tensor | None) -> Tensor:
        joined = upsampled_convolution(x, self.below.weight, self.below.bias)
        return joined if of_skip is None else joined.add_(of_skip)


def _convolution(in_channels: int, out_channels: int, *, inputs: int, bias: bool) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    # He et al. 2015, for all channels that are added up.
    nn.init.normal_(convolution.weight, std=(2 / (9 * inputs)) ** 0.5)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def _norm(channels: int, normalization: Normalization) -> nn.Module:
    return nn.BatchNorm2d(channels) if normalization == "batch" else nn.Identity()

"""VGGDeepLab: DeepLab-LargeFOV and DeepLab-ASPP, the VGG networks with dilated convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.segmentation.fully_connected import check_fully_connected, published_classifier
from vggtransfer.segmentation.segmenter import Segmenter, check_classes

DeepLabHead = Literal["largefov", "aspp"]

_RATES = {"largefov": (12,), "aspp": (6, 12, 18, 24)}
_STRIDE: Literal[8] = 8
# A pooling by 2 answers for the middle of its two values, half a step to the right. Of the two that are replaced here,
# pool4 moves by half of 8 pixels and pool5, dilated, by half of 16, and nothing puts their maps back on a coarser grid.
_SHIFT = 12


class VGGDeepLab(Segmenter):
    """DeepLab (Chen et al. 2015, 2018) over a VGG trunk with stride 8, for pictures of any size.

    Args:
        arch: One of `vggtransfer.encoder.architectures.ARCHITECTURE_NAMES`.
        classes: Number of scores per pixel.
        head: `"largefov"`: fc6 as a 3x3 convolution with dilation 12, fc7, scores (DeepLab-LargeFOV). `"aspp"`: the sum
            of four such branches with dilations 6, 12, 18 and 24 (DeepLab v2, section 3.2, "ASPP-L").
        weights: See `VGGEncoder`, as for `unfreeze`, `in_channels` and `normalize`. Where the source has fc6 and fc7,
            they are decimated as in the paper: every third of 7x7 values, which lie where dilation 12 puts the 3x3,
            and evenly spaced channels.
        unfreeze: What of the encoder trains; all behind it always does.
        hidden_channels: Channels of fc6 and fc7. None is twice those of `pool5`: 1024 for vgg16, as published.
        dropout: Probability behind fc6 and fc7.
        in_channels: Channels of the pictures.
        normalize: False if the pictures have already been normalised for these weights.

    Attributes:
        pretrained_layers: Which of fc6 and fc7 have pretrained weights.

    Raises:
        OptionError: An argument that cannot be used; the message names it.
        WeightsError: Weights that cannot be found, verified or matched.
    """

    def __init__(
        self,
        arch: str = "vgg16",
        *,
        classes: int,
        head: DeepLabHead = "aspp",
        weights: str | Path | None = "default",
        unfreeze: str = "block5",
        hidden_channels: int | None = None,
        dropout: float = 0.5,
        in_channels: int = 3,
        normalize: bool = True,
    ) -> None:
        if head not in _RATES:
            raise OptionError(f"head='{head}' is not possible: use {', '.join(_RATES)}")
        check_classes(classes)
        check_fully_connected(hidden_channels=hidden_channels, dropout=dropout)
        classifier = published_classifier(arch, weights, in_channels=in_channels)
        encoder = VGGEncoder(
            arch,
            weights=weights,
            in_channels=in_channels,
            layers=["pool5"],
            unfreeze=unfreeze,
            output_stride=_STRIDE,
            normalize=normalize,
        )
        channels = encoder.out_channels[-1]
        decoder = DeepLabDecoder(
            channels,
            classes=classes,
            rates=_RATES[head],
            hidden_channels=2 * channels if hidden_channels is None else hidden_channels,
            dropout=dropout,
        )
        super().__init__(encoder, decoder, classes=classes, multiple=_STRIDE, shift=_SHIFT)
        self.pretrained_layers = decoder.load_classifier(classifier)


class DeepLabDecoder(nn.Module):
    """The sum of the scores of branches that look around at different rates, at full resolution."""

    def __init__(
        self, channels: int, *, classes: int, rates: tuple[int, ...], hidden_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            Branch(channels, classes=classes, rate=rate, hidden_channels=hidden_channels, dropout=dropout)
            for rate in rates
        )

    def load_classifier(self, classifier: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Decimates published fully connected layers into all branches; returns the names of those filled."""
        filled = {name for branch in self.branches for name in branch.load_classifier(classifier)}  # type: ignore[operator]
        return tuple(sorted(filled))

    def keep(self, position: int, tap: Tensor) -> Tensor:  # noqa: ARG002  (there is one tap)
        """See `vggtransfer.segmentation.segmenter.Decoder`."""
        first, *others = self.branches
        scores: Tensor = first(tap)
        for branch in others:
            scores = scores + branch(tap)
        return scores

    def join(self, kept: list[Tensor]) -> Tensor:
        """See `vggtransfer.segmentation.segmenter.Decoder`."""
        return F.interpolate(kept.pop(), scale_factor=_STRIDE, mode="bilinear")


class Branch(nn.Module):
    """fc6 with dilation, fc7 and the scoring layer, as convolutions."""

    def __init__(self, channels: int, *, classes: int, rate: int, hidden_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv6 = nn.Conv2d(channels, hidden_channels, 3, padding=rate, dilation=rate)
        self.conv7 = nn.Conv2d(hidden_channels, hidden_channels, 1)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(hidden_channels, classes, 1)
        for layer in (self.conv6, self.conv7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.score.weight, std=0.01)
        for layer in (self.conv6, self.conv7, self.score):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def load_classifier(self, classifier: Mapping[str, Tensor]) -> list[str]:
        """Decimates published layers into fc6 and fc7 if they fit; returns the names of those filled."""
        if "fc6.weight" not in classifier:
            return []
        hidden, channels = self.conv6.weight.shape[:2]
        published = len(classifier["fc6.bias"])
        weight6 = classifier["fc6.weight"]
        if published % hidden or weight6.shape[1] != channels * 7 * 7:
            return []
        step = published // hidden
        with torch.no_grad():
            self.conv6.weight.copy_(weight6.view(published, channels, 7, 7)[::step, :, ::3, ::3])
            self.conv7.weight.copy_(classifier["fc7.weight"][::step, ::step, None, None])
            for layer, name in ((self.conv6, "fc6"), (self.conv7, "fc7")):
                assert layer.bias is not None
                layer.bias.copy_(classifier[f"{name}.bias"][::step])
        return ["fc6", "fc7"]

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu_(self.conv6(x)))
        x = self.dropout(F.relu_(self.conv7(x)))
        scores: Tensor = self.score(x)
        return scores

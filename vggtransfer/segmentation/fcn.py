"""VGGFCN: fully convolutional networks, FCN-32s, FCN-16s and FCN-8s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.segmentation.fully_connected import check_fully_connected, published_classifier
from vggtransfer.segmentation.segmenter import Segmenter, check_classes

FCNHead = Literal["fcn32s", "fcn16s", "fcn8s"]

_TAPS = {"fcn32s": ("pool5",), "fcn16s": ("pool4", "pool5"), "fcn8s": ("pool3", "pool4", "pool5")}
_STRIDE = 32


class VGGFCN(Segmenter):
    """FCN of Long, Shelhamer & Darrell 2015 over a VGG trunk, from pictures of any size to logits of the same size.

    fc6 and fc7 become convolutions, with their pretrained weights where the source of the weights has them. Scores of
    `pool4` and `pool3` are added to what is upsampled by 2 from below; new scoring layers are zero, the upsampling
    layers between them transposed convolutions that learn from bilinear interpolation on, the last one is bilinear
    interpolation itself. Where the paper pads pictures by 100 pixels and cuts the maps to fit, fc6 is padded by 3 here,
    so that all maps cover the same pixels.

    Args:
        arch: One of `vggtransfer.encoder.architectures.ARCHITECTURE_NAMES`.
        classes: Number of scores per pixel.
        head: `"fcn32s"`: scores of `pool5` only. `"fcn16s"`: and `pool4`. `"fcn8s"`: and `pool3`.
        weights: See `VGGEncoder`, as for `unfreeze`, `in_channels` and `normalize`.
        unfreeze: What of the encoder trains; all behind it always does.
        hidden_channels: Channels of fc6 and fc7. None is 8 times those of `pool5`: 4096 for vgg16, as published.
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
        head: FCNHead = "fcn8s",
        weights: str | Path | None = "default",
        unfreeze: str = "block5",
        hidden_channels: int | None = None,
        dropout: float = 0.5,
        in_channels: int = 3,
        normalize: bool = True,
    ) -> None:
        if head not in _TAPS:
            raise OptionError(f"head='{head}' is not possible: use {', '.join(_TAPS)}")
        check_classes(classes)
        check_fully_connected(hidden_channels=hidden_channels, dropout=dropout)
        classifier = published_classifier(arch, weights, in_channels=in_channels)
        encoder = VGGEncoder(
            arch,
            weights=weights,
            in_channels=in_channels,
            layers=_TAPS[head],
            unfreeze=unfreeze,
            normalize=normalize,
        )
        decoder = FCNDecoder(encoder.out_channels, classes=classes, hidden_channels=hidden_channels, dropout=dropout)
        super().__init__(encoder, decoder, classes=classes, multiple=_STRIDE)
        self.pretrained_layers = decoder.load_classifier(classifier)


class FCNDecoder(nn.Module):
    """fc6 and fc7 on the last tap, scores of all taps, and their sum at full resolution.

    Args:
        encoder_channels: Channels of the taps, from the finest to the coarsest, each at half the resolution of the one
            before, the last one at stride 32.
        classes: Number of scores per pixel.
        hidden_channels: See `VGGFCN`, as for `dropout`.
        dropout: Probability.
    """

    def __init__(
        self, encoder_channels: Sequence[int], *, classes: int, hidden_channels: int | None, dropout: float
    ) -> None:
        super().__init__()
        *finer, deepest = encoder_channels
        hidden = 8 * deepest if hidden_channels is None else hidden_channels
        # Not called fc6 and fc7, for a file with those names is taken for one with VGG's own fully connected layers.
        self.conv6 = nn.Conv2d(deepest, hidden, 7, padding=3)
        self.conv7 = nn.Conv2d(hidden, hidden, 1)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.conv6, self.conv7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.scores = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in (*finer, hidden))
        for parameter in self.scores.parameters():
            nn.init.zeros_(parameter)
        self.upsamplings = nn.ModuleList(BilinearUpsampling(classes) for _ in finer)

    def load_classifier(self, classifier: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Copies published fully connected layers into fc6 and fc7 if they fit; returns the names of those filled."""
        filled = []
        for name, layer in (("fc6", self.conv6), ("fc7", self.conv7)):
            weight = classifier.get(f"{name}.weight")
            if weight is not None and weight.numel() == layer.weight.numel() and len(weight) == len(layer.weight):
                layer.load_state_dict({"weight": weight.view(layer.weight.shape), "bias": classifier[f"{name}.bias"]})
                filled.append(name)
        return tuple(filled)

    def keep(self, position: int, tap: Tensor) -> Tensor:
        """See `vggtransfer.segmentation.segmenter.Decoder`."""
        if position == len(self.scores) - 1:
            tap = self.dropout(F.relu_(self.conv6(tap)))
            tap = self.dropout(F.relu_(self.conv7(tap)))
        scores: Tensor = self.scores[position](tap)
        return scores

    def join(self, kept: list[Tensor]) -> Tensor:
        """See `vggtransfer.segmentation.segmenter.Decoder`."""
        scores = kept.pop()
        for upsampling in self.upsamplings:
            scores = upsampling(scores) + kept.pop()
        factor = _STRIDE // 2 ** len(self.upsamplings)
        return F.interpolate(scores, scale_factor=factor, mode="bilinear")


class BilinearUpsampling(nn.Module):
    """A transposed convolution by 2 of maps with some channels; untrained, it is bilinear interpolation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The interpolation of Long et al. 2015, section 3.3: a triangle over 4 values, each channel by itself.
        triangle = torch.tensor([0.25, 0.75, 0.75, 0.25])
        kernel = torch.einsum("io,h,w->iohw", torch.eye(channels), triangle, triangle)
        self.weight = nn.Parameter(kernel)

    def forward(self, x: Tensor) -> Tensor:
        # One value more on each side, cut off again: with zeros there, scores would fade at the borders.
        continued = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(continued, self.weight, stride=2, padding=3)

"""What all segmentation networks here have in common: an encoder, a decoder, and pictures of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.input_check import InputShape
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError


class Decoder(Protocol):
    """Turns an encoder's taps into scores.

    A decoder first takes from each tap what it wants to keep of it, by itself, so that whoever does not train can let
    go of a tap before the next one is computed.
    """

    def keep(self, position: int, tap: Tensor) -> Tensor:
        """Returns what is wanted of the tap at a position in `encoder.layers`."""
        ...

    def join(self, kept: list[Tensor]) -> Tensor:
        """Returns scores [batch, classes, height, width] from what was kept of all taps; empties the list."""
        ...


class Segmenter(nn.Module):
    """A network from pictures [batch, channels, height, width] to logits [batch, classes, height, width].

    Pictures are RGB in [0, 1] and of any size: they are continued by their outermost rows and columns to a multiple of
    the network's stride, and the logits cut back.

    Args:
        encoder: The trunk; what its freezing policy freezes runs without autograd bookkeeping.
        decoder: A module with the methods of `Decoder`.
        classes: Number of scores per pixel.
        multiple: What the sides of the padded pictures are multiples of.
        shift: How many pixels further to the right and below than its place among the scores a score looks.
    """

    def __init__(self, encoder: VGGEncoder, decoder: nn.Module, *, classes: int, multiple: int, shift: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.classes = classes
        self.multiple = multiple
        self.shift = shift

    def forward(self, images: Tensor) -> Tensor:
        """Returns one logit per class and pixel.

        Raises:
            InputError: Pictures of the wrong rank or channels; on the first batch also of the wrong range.
        """
        self.input_shape().check(images)
        taps = self.encoder(padded(images, self.multiple, shift=self.shift))
        decoder = cast(Decoder, self.decoder)
        kept = [decoder.keep(position, tap) for position, tap in enumerate(taps)]
        return _cut(decoder.join(kept), *images.shape[2:])

    def input_shape(self) -> InputShape:
        """What pictures must be; of any height and width."""
        return replace(self.encoder.input_shape(self.encoder.layers), minimum=1)


def padded(images: Tensor, multiple: int, *, shift: int) -> Tensor:
    """Continues pictures by their outermost columns and rows.

    Args:
        images: [batch, channels, height, width].
        multiple: Of the sides of the result; what is missing is added on the right and below.
        shift: Columns and rows to add on the left and above.
    """
    height, width = (side + shift for side in images.shape[2:])
    right, bottom = -width % multiple, -height % multiple
    # What is exported is for all sizes, whether or not the example's need any padding.
    if not torch.compiler.is_exporting() and shift == right == bottom == 0:
        return images
    return F.pad(images, (shift, right, shift, bottom), mode="replicate")


def _cut(scores: Tensor, height: int, width: int) -> Tensor:
    if torch.compiler.is_exporting():
        # With indexing, a graph would be for sizes that need no padding, or for all others, like its example.
        return F.pad(scores, (0, width - scores.shape[3], 0, height - scores.shape[2]))
    return scores[..., :height, :width]


def check_classes(classes: int) -> None:
    """Refuses to build a network for no class.

    Raises:
        OptionError: There is none.
    """
    if classes < 1:
        raise OptionError(f"classes={classes} is not possible: there must be at least 1")

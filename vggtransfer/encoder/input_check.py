"""What an encoder refuses to look at, with the remedy: batches of the wrong shape or in the wrong range."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from vggtransfer.errors import InputError

# Interpolation and optimised pictures overshoot [0, 1] a little; the mistakes this is to catch ([0, 255], [-1, 1],
# already normalised) overshoot it by far more.
_RANGE_SLACK = 0.25


@dataclass(frozen=True)
class InputShape:
    """What an encoder can take.

    Attributes:
        channels: Channels of the pictures.
        poolings: How many poolings they will pass.
        minimum: Their shorter side at least, in pixels.
    """

    channels: int
    poolings: int
    minimum: int

    def check(self, images: Tensor) -> None:
        """Checks that pictures are a batch [batch, channels, height, width] with sides of at least `minimum`.

        Raises:
            InputError: They are not.
        """
        if images.dim() != 4:
            raise InputError(
                f"expected a batch [batch, {self.channels}, height, width], got shape {list(images.shape)}; "
                "add a batch axis to a single picture with images[None]"
            )
        if images.shape[1] != self.channels:
            hint = "; channels come before height and width" if images.shape[3] == self.channels else ""
            raise InputError(
                f"expected {self.channels} channels, got shape {list(images.shape)}{hint} "
                f"(VGGEncoder(in_channels={images.shape[1]}) builds a network for {images.shape[1]})"
            )
        if min(images.shape[2], images.shape[3]) < self.minimum:
            raise InputError(
                f"pictures of {images.shape[2]}x{images.shape[3]} do not survive {self.poolings} poolings: "
                f"the minimum is {self.minimum}x{self.minimum}; use larger pictures, a smaller depth or earlier layers"
            )


def check_range(images: Tensor, *, normalize: bool) -> None:
    """Checks that pictures are floats and, if they are yet to be normalised, that they lie in [0, 1].

    Raises:
        InputError: They are not; says what they look like.
    """
    if not images.is_floating_point():
        raise InputError(f"pictures are {images.dtype}; convert them to float in [0, 1] with images.float() / 255")
    if not normalize or images.is_meta or images.numel() == 0:
        return
    low, high = images.min().item(), images.max().item()
    if low >= -_RANGE_SLACK and high <= 1 + _RANGE_SLACK:
        return
    if math.isnan(low) or math.isnan(high):
        raise InputError("the pictures contain NaN")
    if high > 16:
        hint = "they look like [0, 255]: divide by 255"
    elif low >= -1 and high <= 1:
        hint = "they look like [-1, 1]: use (images + 1) / 2"
    else:
        hint = "if they are already normalised for these weights, build VGGEncoder(normalize=False)"
    raise InputError(f"pictures must lie in [0, 1], got [{low:.3g}, {high:.3g}]; {hint}")

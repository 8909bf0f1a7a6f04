"""What losses refuse to compare, with the remedy."""

from __future__ import annotations

import torch
from torch import Tensor

from vggtransfer.encoder.input_check import InputShape, check_range
from vggtransfer.errors import InputError


def check_pictures(pictures: Tensor, *, name: str, shape: InputShape, values: bool) -> None:
    """Checks one batch of pictures [batch, channels, height, width].

    Args:
        pictures: The batch.
        name: What the message calls it.
        shape: Channels and the smallest side that the layers need.
        values: Also look at every value: all of them must be finite and lie in [0, 1], with some slack for what
            interpolation and optimisation overshoot.

    Raises:
        InputError: It is not what it must be; says what it looks like and what to do.
    """
    pictures = pictures.detach()
    if pictures.dim() == 4 and pictures.shape[1] != shape.channels:
        remedy = (
            f"build the loss with in_channels={pictures.shape[1]}, or repeat the channel: {name}.expand(-1, 3, -1, -1)"
            if pictures.shape[1] == 1
            else "channels come before height and width"
            if pictures.shape[3] == shape.channels
            else f"build the loss with in_channels={pictures.shape[1]}"
        )
        raise InputError(
            f"{name} has shape {list(pictures.shape)}, but the loss expects {shape.channels} channels; {remedy}"
        )
    try:
        shape.check(pictures)
        if not pictures.shape[0]:
            raise InputError(f"there are no pictures in a batch of shape {list(pictures.shape)}")
        if values:
            if pictures.is_floating_point() and not torch.isfinite(pictures).all():
                raise InputError("the pictures contain NaN or infinite values")
            check_range(pictures, normalize=True)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def check_pair(x: Tensor, y_shape: torch.Size, *, same_size: bool) -> None:
    """Checks that pictures can be compared with targets: one target for all of them, or one for each.

    Raises:
        InputError: They cannot.
    """
    if y_shape[0] not in (1, x.shape[0]) or (same_size and y_shape[2:] != x.shape[2:]):
        raise InputError(
            f"x has shape {list(x.shape)} and the target {list(y_shape)}; give one target for each picture, or one "
            "for all of them" + (", of the same height and width" if same_size else "")
        )

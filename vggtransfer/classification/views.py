"""Test-time augmentation: the views of a picture whose predictions are averaged.

Only slicing and mirroring of tensors, so commands can name the choices in their signatures without importing torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

TTA = Literal["none", "flip", "five-crop", "ten-crop"]
"""`none`: the centre crop alone. `flip`: it and its mirror image. `five-crop`: the centre and the four corners.
`ten-crop`: these and their mirror images (Krizhevsky et al. 2012, section 4.1)."""

_LARGEST_CROP_FRACTION = 0.875


def square_side(tta: TTA, *, image_size: int, crop_fraction: float) -> int:
    """Returns the side of the square that the views are cut out of: `image_size` unless there are corners to cut.

    Otherwise it is what a centre crop of `crop_fraction` is cut out of, so that the centre view is exactly the picture
    evaluation sees without test-time augmentation. Where evaluation keeps the whole square (fraction 1, thumbnails),
    there are no corners; the square is then enlarged as for a fraction of 0.875.
    """
    if tta in ("none", "flip"):
        return image_size
    return round(image_size / min(crop_fraction, _LARGEST_CROP_FRACTION))


def views(pictures: Tensor, tta: TTA, *, image_size: int) -> Iterator[Tensor]:
    """Yields the views [batch, channels, image_size, image_size] of pictures [batch, channels, side, side].

    The centre comes first. `side` is that of `square_side`.
    """
    for top, left in _corners(pictures.shape[-1], image_size, tta):
        view = pictures[..., top : top + image_size, left : left + image_size]
        yield view
        if tta in ("flip", "ten-crop"):
            yield view.flip(-1)


def _corners(side: int, image_size: int, tta: TTA) -> Iterator[tuple[int, int]]:
    margin = side - image_size
    yield margin // 2, margin // 2
    if tta in ("five-crop", "ten-crop"):
        for top in (0, margin):
            for left in (0, margin):
                yield top, left

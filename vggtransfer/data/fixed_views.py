"""Augmentation that draws from a fixed number of views of each picture, so that what becomes of them can be kept.

Which view a sample shows in an epoch, and what the view looks like, are the same whether anything is kept or not.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from vggtransfer.data.augmentation_lists import Entry
from vggtransfer.data.resampling import Picture, centre_square
from vggtransfer.data.transforms import (
    Transform,
    default_crop_fraction,
    evaluation_transform,
    sample_seed,
    train_transform,
)
from vggtransfer.errors import OptionError

SHIFT = 16
"""Pixels between the crops of the preset `crops`: the stride of VGG's maps before the fifth pooling."""


@dataclass(frozen=True)
class Place:
    """Where to find a view: a crop of the square that is kept, as wide as a picture for the network.

    Attributes:
        square: Number of the square.
        top: Pixels above the crop.
        left: Pixels left of it.
    """

    square: int
    top: int = 0
    left: int = 0


@runtime_checkable
class FixedViews(Protocol):
    """A transform with a fixed number of views of each picture.

    Attributes:
        name: What it is called in messages.
        steps: Plain data that differ whenever the views do, but for image_size.
        image_size: Side of a view in pixels.
        min_side: See `vggtransfer.data.transforms.Transform`.
        views: Number of views.
        squares: Number of squares that hold all views between them.
        square_side: Side of a square in pixels; above image_size if views are crops of it.
    """

    name: str
    image_size: int
    min_side: int | None
    views: int
    squares: int
    square_side: int

    @property
    def steps(self) -> Sequence[Entry]: ...

    def __call__(self, image: Picture, *, key: int) -> Picture:
        """Returns the view for `key`."""
        ...

    def place(self, key: int) -> Place:
        """Tells where the view for `key` is found."""
        ...

    def square(self, image: Picture, number: int) -> Picture:
        """Returns one of the squares, uint8 [square_side, square_side, 3]."""
        ...


class Mirror:
    """What evaluation sees, or its mirror image."""

    views, squares = 2, 2

    def __init__(self, image_size: int) -> None:
        self.name = "mirror"
        self.steps: Sequence[Entry] = ("mirror",)
        self.image_size = self.square_side = image_size
        self._plain = evaluation_transform(image_size, name=self.name)
        self.min_side = self._plain.min_side

    def __call__(self, image: Picture, *, key: int) -> Picture:
        return self.square(image, self.place(key).square)

    def place(self, key: int) -> Place:
        return Place(key % self.views)

    def square(self, image: Picture, number: int) -> Picture:
        square = self._plain(image, key=0)
        return np.ascontiguousarray(square[:, ::-1]) if number else square


class Crops:
    """Shifts by up to 16 pixels each way in steps of 16, and mirror images: 18 views, none of them zoomed.

    The scale is that of evaluation. Where its square ends, the picture is continued by reflection. Convolutions commute
    with shifts by their stride, so that the maps of all views can be cut out of those of two larger squares; this is
    exact except near the border, where the maps of a view by itself see zeros instead of what lies beyond it.
    """

    views, squares = 18, 2

    def __init__(self, image_size: int) -> None:
        if image_size % SHIFT:
            raise OptionError(f"augmentation=crops needs an image_size that is a multiple of {SHIFT}, not {image_size}")
        self.name = "crops"
        self.steps: Sequence[Entry] = (f"crops of {SHIFT}",)
        self.image_size = image_size
        self.square_side = image_size + 2 * SHIFT
        self.min_side: int | None = round(image_size / default_crop_fraction(image_size))

    def __call__(self, image: Picture, *, key: int) -> Picture:
        place = self.place(key)
        rows = slice(place.top, place.top + self.image_size)
        columns = slice(place.left, place.left + self.image_size)
        return np.ascontiguousarray(self.square(image, place.square)[rows, columns])

    def place(self, key: int) -> Place:
        number = key % self.views
        return Place(number % 2, number // 2 % 3 * SHIFT, number // 6 * SHIFT)

    def square(self, image: Picture, number: int) -> Picture:
        full = round(self.image_size / default_crop_fraction(self.image_size))
        inner = min(full, self.square_side)
        square = centre_square(image, inner, inner / full)
        before = (self.square_side - inner) // 2
        after = self.square_side - inner - before
        square = cv2.copyMakeBorder(square, before, after, before, after, cv2.BORDER_REFLECT_101)  # type: ignore[assignment]
        return np.ascontiguousarray(square[:, ::-1] if number else square)


class DrawnViews:
    """Views drawn once from any augmentation: each picture has the same few in all epochs.

    Args:
        transform: The augmentation.
        views: How many.
        seed: Chooses them, together with the picture's pixels.
    """

    def __init__(self, transform: Transform, views: int, *, seed: int) -> None:
        self.name, self.image_size, self.min_side = transform.name, transform.image_size, transform.min_side
        self.steps = (*transform.steps, f"{views} views, seed {seed}")
        self.views = self.squares = views
        self.square_side = transform.image_size
        self._transform, self._seed = transform, seed

    def __call__(self, image: Picture, *, key: int) -> Picture:
        return self.square(image, self.place(key).square)

    def place(self, key: int) -> Place:
        return Place(key % self.views)

    def square(self, image: Picture, number: int) -> Picture:
        return self._transform(image, key=sample_seed(self._seed, number, zlib.crc32(image.tobytes())))


class Plain:
    """What evaluation sees, and nothing else."""

    views, squares = 1, 1

    def __init__(self, transform: Transform) -> None:
        self.name, self.steps = transform.name, transform.steps
        self.image_size = self.square_side = transform.image_size
        self.min_side = transform.min_side
        self.crop_fraction = transform.crop_fraction
        self._transform = transform

    def __call__(self, image: Picture, *, key: int) -> Picture:
        return self._transform(image, key=key)

    def place(self, key: int) -> Place:  # noqa: ARG002
        return Place(0)

    def square(self, image: Picture, number: int) -> Picture:
        return self._transform(image, key=number)


def augmentation(
    preset: str | Path, image_size: int, *, views: int | None = None, seed: int = 0
) -> Transform | FixedViews:
    """Makes the augmentation for training, with a fixed number of views of each picture where there is one.

    Args:
        preset: `mirror` (evaluation's view and its mirror image), `crops` (18 shifted and mirrored ones), or what
            `vggtransfer.data.transforms.train_transform` takes.
        image_size: Side of the result in pixels.
        views: Draw so many views of each picture once, instead of a new one in each epoch; None does not.
        seed: Chooses them.

    Raises:
        OptionError: As from `train_transform`; or views of an augmentation that has a number of its own.
    """
    if preset in ("mirror", "crops"):
        own = Mirror(image_size) if preset == "mirror" else Crops(image_size)
        if views is not None:
            raise OptionError(
                f"--views {views} is not for the augmentation '{preset}', which has {own.views}; leave it out"
            )
        return own
    transform = train_transform(preset, image_size)
    if not transform.steps:
        if views is not None:
            raise OptionError(f"--views {views} is for random augmentation, and '{preset}' is not; leave it out")
        return Plain(transform)
    return transform if views is None else DrawnViews(transform, views, seed=seed)

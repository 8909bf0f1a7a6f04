"""Mask files as they are: values or colours, before anybody says what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from vggtransfer.errors import BadImageError
from vggtransfer.segmentation.mask_classes import Colour

MOST_COLOURS = 300
"""Colours of a mask that are counted; one with more of them is a photograph, or was smoothed."""


@dataclass(frozen=True)
class RawMask:
    """The pixels of a mask file.

    Attributes:
        values: Whole numbers [height, width]; of a colour mask, red * 65536 + green * 256 + blue.
        in_colour: Whether they are colours.
        palette: Colour of each value, for files that have a palette.
        kind: Format, such as `PNG`.
        rgb: Whether the file has red, green and blue, though they may be equal everywhere.
    """

    values: NDArray[Any]
    in_colour: bool
    palette: Mapping[int, Colour]
    kind: str
    rgb: bool = False


@dataclass(frozen=True)
class MaskSummary:
    """What one mask file holds.

    Attributes:
        path: The file.
        size: (height, width).
        in_colour: Whether its values are colours (see `RawMask`).
        counts: Pixels of each value, at most `MOST_COLOURS` of them.
        smoothed: Whether there were more.
        palette: Colours of the values that occur, if it has a palette.
        kind: Format.
        rgb: See `RawMask`.
    """

    path: Path
    size: tuple[int, int]
    in_colour: bool
    counts: Mapping[int, int]
    smoothed: bool
    palette: Mapping[int, Colour]
    kind: str
    rgb: bool = False


def open_mask(path: Path) -> RawMask:
    """Reads a mask: 1, 8 or 16 bits a pixel, with or without a palette, or RGB. Grey in RGB is taken for values.

    Raises:
        BadImageError: `PATH: reason`: it cannot be read, or is of a kind that masks are not.
    """
    try:
        with Image.open(path) as image:
            kind = image.format or ""
            image.load()
            if image.mode == "P":
                colours = (image.getpalette("RGB") or []) if image.palette else []
                triples = [tuple(colours[start : start + 3]) for start in range(0, len(colours) - 2, 3)]
                return RawMask(np.array(image), False, dict(enumerate(triples)), kind)  # type: ignore[arg-type]
            if image.mode in ("1", "L", "LA"):
                return RawMask(np.array(image.getchannel(0), np.uint8), False, {}, kind)
            if image.mode in ("I", "I;16", "I;16B"):
                return RawMask(np.array(image, np.int32), False, {}, kind)
            if image.mode not in ("RGB", "RGBA"):
                raise BadImageError(f"{path}: a picture of mode {image.mode} is no mask; save it as 8-bit PNG")
            red, green, blue = (np.array(image.getchannel(name), np.int32) for name in "RGB")
    except BadImageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever comes up
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadImageError(f"{path}: cannot be read as a mask: {reason}".replace("\n", " ")) from error
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return RawMask(red, False, {}, kind, rgb=True)
    return RawMask((red << 16) + (green << 8) + blue, True, {}, kind, rgb=True)


def summarise_mask(path: Path) -> MaskSummary:
    """Reads a mask and counts its values.

    Raises:
        BadImageError: See `open_mask`.
    """
    raw = open_mask(path)
    height, width = raw.values.shape
    if raw.values.dtype == np.uint8:  # ten times as fast
        counts = np.bincount(raw.values.ravel(), minlength=256)
        values = counts.nonzero()[0]
        counts = counts[values]
    else:
        values, counts = np.unique(raw.values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_COLOURS]
    kept: dict[int, int] = dict(zip(values[order].tolist(), counts[order].tolist(), strict=True))
    return MaskSummary(
        path=path,
        size=(height, width),
        in_colour=raw.in_colour,
        counts=kept,
        smoothed=len(values) > MOST_COLOURS,
        palette={value: raw.palette[value] for value in kept if value in raw.palette},
        kind=raw.kind,
        rgb=raw.rgb,
    )


def picture_size(path: Path) -> tuple[int, int]:
    """Returns (height, width) of a picture as it is shown, upright, from the head of its file.

    Raises:
        BadImageError: `PATH: reason`.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:
        raise BadImageError(f"{path}: cannot be read: {error}".replace("\n", " ")) from error
    return (width, height) if turned in (5, 6, 7, 8) else (height, width)

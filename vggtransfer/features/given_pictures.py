"""Pictures as people hold them in Python: paths, PIL images, arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vggtransfer.data.decode import decode_image
from vggtransfer.data.deep_pictures import to_bytes
from vggtransfer.data.resampling import Picture, centre_square
from vggtransfer.errors import InputError

GivenPicture: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[Any]"

_ACCEPTED = "give paths, PIL images, or an array of RGB pictures [n, height, width, 3] or [n, 3, height, width]"


def as_pictures(pictures: Any) -> Sequence[GivenPicture]:
    """Takes a collection apart.

    Args:
        pictures: A list, tuple, Series or array of paths, PIL images or arrays [height, width, 3] or
            [3, height, width]; or one array [n, height, width, 3] or [n, 3, height, width]. Arrays are uint8, or float
            in [0, 1].

    Raises:
        InputError: It is something else, or empty.
    """
    if isinstance(pictures, str | os.PathLike | Image.Image):
        raise InputError(f"X is a single {type(pictures).__name__}; put it into a list")
    if hasattr(pictures, "toarray"):
        raise InputError(f"X is a sparse matrix, and sparse data is not supported; {_ACCEPTED}")
    if hasattr(pictures, "to_numpy"):  # a column of a data frame
        pictures = pictures.to_numpy()
    if not isinstance(pictures, list | tuple):
        pictures = np.asarray(pictures)
        if pictures.ndim == 2 and pictures.shape[1] == 1 and pictures.dtype.kind in "OUT":
            pictures = pictures[:, 0]  # a data frame of one column
        if pictures.ndim != 4 and not (pictures.ndim == 1 and pictures.dtype.kind in "OUT"):
            raise InputError(f"X has shape {list(pictures.shape)} and type {pictures.dtype}; {_ACCEPTED}")
    if len(pictures) == 0:
        raise InputError(f"X holds no picture (0 samples); {_ACCEPTED}")
    return pictures  # type: ignore[no-any-return]


def read_picture(given: GivenPicture, *, image_size: int, crop_fraction: float) -> Picture:
    """Returns one picture as the network is to see it: uint8 RGB [image_size, image_size, 3].

    Raises:
        BadImageError: A file that cannot be decoded.
        InputError: Neither a path nor a picture.
    """
    if isinstance(given, str | os.PathLike):
        pixels = decode_image(Path(given), min_side=round(image_size / crop_fraction))
    elif isinstance(given, Image.Image):
        pixels = _of_image(given)
    else:
        pixels = _of_array(np.asarray(given))
    return centre_square(pixels, image_size, crop_fraction)


def _of_image(image: Image.Image) -> Picture:
    image = ImageOps.exif_transpose(image)  # as the same file given by its path
    if image.mode.startswith("I;16"):
        return to_bytes(np.asarray(image), white=65535)  # Pillow's own conversion takes all above 255 for white
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _of_array(array: NDArray[Any]) -> Picture:
    if array.ndim == 3 and array.shape[2] != 3 and array.shape[0] == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"a picture has shape {list(array.shape)} and type {array.dtype}; {_ACCEPTED}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also if there is NaN
            raise InputError(
                f"a picture of floats must lie in [0, 1], got [{array.min():.3g}, {array.max():.3g}]; "
                "divide by its white, or give uint8"
            )
        array = np.rint(array * 255)
    elif array.dtype != np.uint8:
        raise InputError(f"a picture has type {array.dtype}; give uint8, or floats in [0, 1]")
    return np.ascontiguousarray(array, dtype=np.uint8)

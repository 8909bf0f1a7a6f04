"""Resizing without aliasing, and the centre crop."""

from __future__ import annotations

from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]
"""uint8 RGB [height, width, 3]."""


def resize(image: Picture, height: int, width: int) -> Picture:
    """Resamples without aliasing: shrinking axes by area averaging, then growing ones by cubic interpolation.

    Each axis by itself, because OpenCV's INTER_AREA falls back to plain interpolation when one of them grows.
    """
    rows, columns = image.shape[:2]
    smaller = min(rows, height), min(columns, width)
    if smaller != (rows, columns):
        image = cast(Picture, cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA))
    if smaller != (height, width):
        image = cast(Picture, cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))
    return image


def centre_square(image: Picture, size: int, crop_fraction: float = 1.0) -> Picture:
    """Resizes the short side to `size / crop_fraction` and cuts the central `size` x `size` out of it.

    What lies outside the central square is cut off first: it would be resized for nothing (a panorama by gigabytes).
    """
    rows, columns = image.shape[:2]
    short = min(rows, columns)
    top, left = (rows - short) // 2, (columns - short) // 2
    full = round(size / crop_fraction)
    square = resize(image[top : top + short, left : left + short], full, full)
    margin = (full - size) // 2
    return square[margin : margin + size, margin : margin + size]

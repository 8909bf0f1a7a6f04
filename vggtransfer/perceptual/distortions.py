"""Five ways to spoil a picture, each in five strengths of which nobody doubts the order.

What is compared is a window of a photograph, cut at multiples of 16 pixels from its top left corner and never resized:
the blocks of a second JPEG compression then lie on those of the first, as they do when a photograph is saved again
(16 pixels are a block of the halved colour channels). Blur sees the pixels around the window, and a shifted window
shows the pixels that really are there: no border is invented. The results are rounded to 8 bits, as in a file.
"""

from __future__ import annotations

import io
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggtransfer.data.resampling import Picture

DistortionName = Literal["blur", "noise", "jpeg", "shift", "colour"]
DISTORTION_NAMES: tuple[DistortionName, ...] = get_args(DistortionName)

STRENGTHS: dict[DistortionName, tuple[float, ...]] = {
    "blur": (0.5, 1, 1.5, 2.5, 4),
    "noise": (4, 8, 16, 24, 40),
    "jpeg": (70, 50, 30, 15, 7),
    "shift": (1, 2, 4, 8, 12),
    "colour": (5, 10, 20, 40, 80),
}
"""From the weakest to the strongest: standard deviation of a Gaussian in pixels; standard deviation of independent
Gaussian noise in each channel, in 255ths; quality as libjpeg counts it, with halved colour channels; pixels to the
right; degrees by which hues turn (in the plane of Cb and Cr, ITU-R BT.601, so that the luma stays)."""

MARGIN = 16
"""Pixels that must lie around the window on every side, a multiple of 16: for the widest blur and shift."""


def window(photograph: Picture, size: int) -> tuple[int, int] | None:
    """Returns (top, left) of the most central window, multiples of 16; None if the photograph is too small for it.

    Args:
        photograph: uint8 RGB [height, width, 3].
        size: Side of the window in pixels.
    """
    places = []
    for side in photograph.shape[:2]:
        highest = (side - MARGIN - size) // 16 * 16
        if highest < MARGIN:
            return None
        places.append(min(highest, max(MARGIN, round((side - size) / 32) * 16)))
    return places[0], places[1]


def cut(photograph: Picture, place: tuple[int, int], size: int) -> Picture:
    """Returns the window itself: uint8 RGB [size, size, 3]."""
    top, left = place
    return photograph[top : top + size, left : left + size]


def distorted(
    photograph: Picture, kind: DistortionName, strength: float, *, place: tuple[int, int], size: int, seed: int
) -> Picture:
    """Returns the spoilt window, uint8 RGB [size, size, 3].

    Args:
        photograph: The whole, uint8 RGB [height, width, 3].
        kind: What is done to it.
        strength: See `STRENGTHS`.
        place: Top left corner of the window, see `window`.
        size: Side of the window in pixels.
        seed: Of the noise.
    """
    top, left = place
    match kind:
        case "blur":
            around = _with_margin(photograph, place, size).astype(np.float32)
            blurred = cv2.GaussianBlur(around, (0, 0), strength)
            return _rounded(blurred[MARGIN : MARGIN + size, MARGIN : MARGIN + size])
        case "noise":
            noise = np.random.default_rng(seed).normal(0, strength, (size, size, 3))
            return _rounded(cut(photograph, place, size) + noise)
        case "jpeg":
            file = io.BytesIO()
            picture = Image.fromarray(np.ascontiguousarray(cut(photograph, place, size)))
            picture.save(file, "JPEG", quality=int(strength), subsampling="4:2:0")
            return np.array(Image.open(file))
        case "shift":
            return cut(photograph, (top, left - int(strength)), size)
        case "colour":
            return _turned_hues(cut(photograph, place, size), strength)


def _with_margin(photograph: Picture, place: tuple[int, int], size: int) -> Picture:
    top, left = place
    return photograph[top - MARGIN : top + size + MARGIN, left - MARGIN : left + size + MARGIN]


def _turned_hues(picture: Picture, degrees: float) -> Picture:
    angle = np.deg2rad(degrees)
    ycrcb = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb)
    cr, cb = ycrcb[..., 1] - 0.5, ycrcb[..., 2] - 0.5
    ycrcb[..., 1] = 0.5 + cr * np.cos(angle) + cb * np.sin(angle)
    ycrcb[..., 2] = 0.5 + cb * np.cos(angle) - cr * np.sin(angle)
    return _rounded(cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB) * 255)


def _rounded(values: NDArray[Any]) -> Picture:
    return cast(Picture, np.clip(np.rint(values), 0, 255).astype(np.uint8))

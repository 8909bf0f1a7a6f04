"""Pictures inside a page, as data URLs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggtransfer.data.resampling import Picture

_JPEG_QUALITY = 82


def photograph_url(picture: Picture) -> str:
    """Returns a JPEG of a photograph, uint8 RGB [height, width, 3], as a data URL."""
    return _url(Image.fromarray(picture), "JPEG", quality=_JPEG_QUALITY, optimize=True)


def graphic_url(pixels: NDArray[np.uint8]) -> str:
    """Returns a lossless PNG of uint8 RGBA [height, width, 4] as a data URL; where it is clear, the page shows."""
    return _url(Image.fromarray(pixels), "PNG", optimize=True)


def _url(image: Image.Image, form: str, **options: object) -> str:
    content = io.BytesIO()
    image.save(content, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"

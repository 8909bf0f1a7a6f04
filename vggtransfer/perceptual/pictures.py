"""Picture files to tensors and back, as the perceptual commands need them: in full, in any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggtransfer.cache import write_atomically
from vggtransfer.data.decode import decode_image
from vggtransfer.data.resampling import Picture, resize


def read_picture(path: Path, *, short_side: int | None = None) -> Tensor:
    """Reads a picture file.

    Args:
        path: The file.
        short_side: Resize the short side to so many pixels, without aliasing; None keeps the size.

    Returns:
        float32 [1, 3, height, width], RGB, in [0, 1].

    Raises:
        BadImageError: The file cannot be decoded.
    """
    picture = decode_image(path)
    return as_tensor(picture if short_side is None else resized(picture, short_side=short_side))


def resized(picture: Picture, *, short_side: int | None = None, long_side: int | None = None) -> Picture:
    """Resizes so that the named side has so many pixels; the other keeps the proportions, to the nearest pixel."""
    height, width = picture.shape[:2]
    side = short_side if short_side is not None else long_side
    assert side is not None
    scale = side / (min if short_side is not None else max)(height, width)
    return resize(picture, max(1, round(height * scale)), max(1, round(width * scale)))


def resized_style(style: Picture, *, content_side: int, style_scale: float) -> Picture:
    """Resizes a style picture for contents with so long a side."""
    return resized(style, long_side=max(32, round(content_side * style_scale)))


def as_tensor(picture: Picture) -> Tensor:
    """From uint8 RGB [height, width, 3] to float32 [1, 3, height, width] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float().div_(255)[None]


def as_picture(pictures: Tensor) -> Picture:
    """From float [1, 3, height, width] to uint8 RGB [height, width, 3]; what lies outside [0, 1] is clipped."""
    values = pictures.detach()[0].float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(values.permute(1, 2, 0).cpu().numpy())


def write_picture(path: Path, picture: Picture) -> Path:
    """Writes uint8 RGB [height, width, 3] atomically, in the format that the name's ending says; returns the path.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    with write_atomically(path) as temporary:
        Image.fromarray(picture).save(temporary, quality=95)
    return path

"""Masks in colours, by themselves and over their pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.masked_transforms import IGNORED
from vggtransfer.data.resampling import Picture
from vggtransfer.segmentation.mask_classes import Colour
from vggtransfer.segmentation.task_names import SegmentationTask

_STRENGTH = 0.55


def overlay(picture: Picture, mask: NDArray[np.uint8], colours: Sequence[Colour], *, task: SegmentationTask) -> Picture:
    """Paints a mask over its picture.

    Args:
        picture: uint8 RGB [height, width, 3].
        mask: Class numbers uint8 [height, width]; 0 and 1 for `"binary"`; those [height, width, classes] for
            `"multilabel"`. `IGNORED` is black.
        colours: One a class.
        task: What the mask says.

    Returns:
        uint8 RGB [height, width, 3], new. Every pixel of a `"multiclass"` mask is coloured, of the others those where a
        class is there; where several are, their colours are averaged.
    """
    base = picture.astype(np.float32)
    palette = np.asarray(colours, np.float32)
    if task == "multiclass":
        shares = np.full(mask.shape, _STRENGTH, np.float32)
        painted = palette[np.where(mask == IGNORED, 0, mask)]
    else:
        layers = (mask[..., None] if mask.ndim == 2 else mask) == 1
        count = layers.sum(axis=-1)
        shares = np.where(count > 0, _STRENGTH, 0).astype(np.float32)
        painted = layers.astype(np.float32) @ palette / np.maximum(count, 1)[..., None]
    ignored = (mask == IGNORED) if mask.ndim == 2 else (mask == IGNORED).all(axis=-1)
    painted[ignored], shares[ignored] = 0, 0.8
    mixed: Picture = (base + shares[..., None] * (painted - base) + 0.5).clip(0, 255).astype(np.uint8)
    return mixed


def mistakes(picture: Picture, truth: NDArray[np.uint8], painted: NDArray[np.uint8]) -> Picture:
    """Paints the pixels red that count and are wrong; the rest is grey."""
    grey = picture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    wrong = (truth != painted) & (truth != IGNORED)
    wrong = wrong if wrong.ndim == 2 else wrong.any(axis=-1)
    red = np.array((230, 40, 40), np.float32)
    shares = np.where(wrong, 0.75, 0.0)[..., None]
    mixed: Picture = (grey * 0.8 + 25 + shares * (red - grey * 0.8 - 25) + 0.5).clip(0, 255).astype(np.uint8)
    return mixed

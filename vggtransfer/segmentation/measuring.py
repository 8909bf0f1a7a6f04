"""A network measured on pictures with masks: scores of all of them, of each, and the worst to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggtransfer.data.resampling import Picture, resize
from vggtransfer.data.scan import BadPicture
from vggtransfer.segmentation.boundary import BoundaryF1
from vggtransfer.segmentation.inference import PaintedPicture, Painter, painted_pictures
from vggtransfer.segmentation.layouts import MaskedSample
from vggtransfer.segmentation.mask_coding import MaskCoding
from vggtransfer.segmentation.metrics import ConfusionMatrix, SegmentationScores
from vggtransfer.segmentation.overlays import mistakes, overlay

_MOST_WORST = 8
_MOST_ORDINARY = 4
_SIDE = 360


@dataclass(frozen=True)
class DrawnPicture:
    """A picture for a report.

    Attributes:
        path: Its file.
        mean_iou: Its own.
        pixel_accuracy: Its own.
        truth: The true mask over the picture, as are the following.
        painted: What the network painted.
        wrong: Where the two differ.
    """

    path: Path
    mean_iou: float
    pixel_accuracy: float
    truth: Picture
    painted: Picture
    wrong: Picture


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        scores: Over the pixels of all pictures.
        boundary_f1: Of each class, see `BoundaryF1`.
        counts: Of the confusion matrix.
        rows: Of each picture, its path, mean IoU and share of right pixels.
        worst: The pictures with the lowest mean IoU, the worst first.
        ordinary: Some others, evenly spread over the list.
        bad: What could not be read.
    """

    scores: SegmentationScores
    boundary_f1: tuple[float, ...]
    counts: Tensor
    rows: tuple[tuple[Path, float, float], ...]
    worst: tuple[DrawnPicture, ...]
    ordinary: tuple[DrawnPicture, ...]
    bad: tuple[BadPicture, ...]


def measure(painter: Painter, samples: Sequence[MaskedSample], coding: MaskCoding, *, title: str) -> Measured:
    """Paints all pictures and compares them with their masks.

    Args:
        painter: What paints.
        samples: Pictures and masks.
        coding: What the masks mean.
        title: Of the progress bar.
    """
    matrix = ConfusionMatrix(len(coding.names), task=coding.task)
    boundary = BoundaryF1(len(coding.names), task=coding.task)
    rows: list[tuple[Path, float, float]] = []
    worst: list[DrawnPicture] = []
    ordinary: list[DrawnPicture] = []
    bad: list[BadPicture] = []
    step = max(1, len(samples) // _MOST_ORDINARY)
    shown = {sample.path for sample in samples[step // 2 :: step][:_MOST_ORDINARY]}
    for one in painted_pictures(painter, samples, coding, title=title, bad=bad):
        matrix += one.matrix
        boundary.add(_batch(one.painted).long(), _batch(one.truth))
        path, own = one.sample.path, one.scores
        rows.append((path, own.mean_iou, own.pixel_accuracy))
        if math.isnan(own.mean_iou):  # nothing in the mask counts
            continue
        if path in shown:
            ordinary.append(_drawn(one, coding))
        if len(worst) < _MOST_WORST or own.mean_iou < worst[-1].mean_iou:
            worst = sorted([*worst, _drawn(one, coding)], key=lambda drawn: drawn.mean_iou)[:_MOST_WORST]
    return Measured(
        scores=matrix.scores(),
        boundary_f1=boundary.scores(),
        counts=matrix.counts,
        rows=tuple(rows),
        worst=tuple(worst),
        ordinary=tuple(ordinary),
        bad=tuple(bad),
    )


def _batch(mask: NDArray[np.uint8]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(mask))
    return (tensor.permute(2, 0, 1) if tensor.dim() == 3 else tensor)[None]


def _drawn(one: PaintedPicture, coding: MaskCoding) -> DrawnPicture:
    def small(pixels: Picture) -> Picture:
        height, width = pixels.shape[:2]
        factor = min(1.0, _SIDE / max(height, width))
        return resize(pixels, max(1, round(height * factor)), max(1, round(width * factor)))

    truth, painted = (overlay(one.picture, mask, coding.colours, task=coding.task) for mask in (one.truth, one.painted))
    return DrawnPicture(
        path=one.sample.path,
        mean_iou=one.scores.mean_iou,
        pixel_accuracy=one.scores.pixel_accuracy,
        truth=small(truth),
        painted=small(painted),
        wrong=small(mistakes(one.picture, one.truth, one.painted)),
    )

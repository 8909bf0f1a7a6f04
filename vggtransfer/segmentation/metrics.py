"""Scores of masks from counts of pixels, which can be added up over batches and processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vggtransfer.segmentation.task_names import SegmentationTask


@dataclass(frozen=True)
class SegmentationScores:
    """How well masks fit; all between 0 and 1.

    Means are over the classes that occur in the truth or in the prediction; the others are NaN in the tuples.

    Attributes:
        mean_iou: Mean of `iou`.
        mean_dice: Mean of `dice`.
        mean_accuracy: Mean of `accuracy`, over the classes in the truth.
        pixel_accuracy: Share of the pixels that are right; of all classes' if each has its own.
        weighted_iou: `iou` weighted by the classes' pixels in the truth ("frequency weighted IU" of Long et al. 2015).
        iou: Intersection over union of each class.
        dice: Dice coefficient (F1) of each class.
        accuracy: Share of each class's pixels that were found (recall).
    """

    mean_iou: float
    mean_dice: float
    mean_accuracy: float
    pixel_accuracy: float
    weighted_iou: float
    iou: tuple[float, ...]
    dice: tuple[float, ...]
    accuracy: tuple[float, ...]


class ConfusionMatrix:
    """Counts pixels by what they are and what they were taken for.

    Args:
        classes: Number of classes.
        task: What the masks say.
        ignore_index: Truth of pixels that do not count.

    Attributes:
        counts: int64; [classes, classes], true class by predicted class, for `"multiclass"`; else [classes, 2, 2],
            whether each class is there by whether it was predicted. May be added up over processes.
    """

    def __init__(self, classes: int, *, task: SegmentationTask = "multiclass", ignore_index: int = 255) -> None:
        self.classes, self.task, self.ignore_index = classes, task, ignore_index
        shape = (classes, classes) if task == "multiclass" else (classes, 2, 2)
        self.counts = torch.zeros(shape, dtype=torch.int64)

    def add(self, predicted: Tensor, targets: Tensor) -> None:
        """Counts a batch.

        Args:
            predicted: As `vggtransfer.segmentation.probabilities.masks` returns them.
            targets: The truth, of the same shape.
        """
        counted = targets != self.ignore_index
        if self.task == "multiclass":
            pairs = self.classes * targets[counted].long() + predicted[counted].long()
        else:
            targets, predicted, counted = (
                mask if self.task == "multilabel" else mask[:, None] for mask in (targets, predicted, counted)
            )
            number = torch.arange(self.classes, device=targets.device).view(1, -1, 1, 1)
            pairs = (4 * number + 2 * targets.long() + predicted.long())[counted]
        counts = torch.bincount(pairs, minlength=self.counts.numel())
        self.counts += counts.view(self.counts.shape).to(self.counts.device)

    def __iadd__(self, other: Self) -> Self:
        self.counts += other.counts.to(self.counts.device)
        return self

    def scores(self) -> SegmentationScores:
        """Scores of all that was counted; NaN where nothing was."""
        counts = self.counts.double()
        if self.task == "multiclass":
            right = hits = counts.diagonal()
            in_truth, in_prediction = counts.sum(dim=1), counts.sum(dim=0)
        else:
            right = counts.diagonal(dim1=1, dim2=2).sum(dim=1)
            hits = counts[:, 1, 1]
            in_truth, in_prediction = counts[:, 1].sum(dim=1), counts[:, :, 1].sum(dim=1)
        iou = hits / (in_truth + in_prediction - hits)
        dice = 2 * hits / (in_truth + in_prediction)
        accuracy = hits / in_truth
        return SegmentationScores(
            mean_iou=iou.nanmean().item(),
            mean_dice=dice.nanmean().item(),
            mean_accuracy=accuracy.nanmean().item(),
            pixel_accuracy=(right.sum() / counts.sum()).item(),
            weighted_iou=((iou.nan_to_num() * in_truth).sum() / in_truth.sum()).item(),
            iou=tuple(iou.tolist()),
            dice=tuple(dice.tolist()),
            accuracy=tuple(accuracy.tolist()),
        )

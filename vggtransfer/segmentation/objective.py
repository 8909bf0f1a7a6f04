"""Losses and scores of masks, as the training loop wants them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.segmentation.losses import SegmentationLoss
from vggtransfer.segmentation.metrics import ConfusionMatrix
from vggtransfer.segmentation.probabilities import masks, probabilities
from vggtransfer.segmentation.sliding_window import sliding_window
from vggtransfer.segmentation.task_names import LossName, SegmentationTask
from vggtransfer.training.contract import Measure

SCORE = Measure("mean_iou", title="mean IoU")
"""What tells the best model."""

_MOST_PIXELS = 4_000_000
_TILE = 1024


class SegmentationObjective:
    """A loss to train with; of the validation, the same without refinements, and the intersections over unions.

    Args:
        loss: Name of the loss, see `SegmentationLoss`.
        classes: Number of scores per pixel.
        task: What masks say.
        class_weights: [classes], for training.
        label_smoothing: For training.
    """

    training_measure: Measure | None = Measure("pixel_accuracy")

    def __init__(
        self,
        loss: LossName,
        *,
        classes: int,
        task: SegmentationTask,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.classes, self.task = classes, task
        self.loss = SegmentationLoss(loss, task=task, class_weights=class_weights, label_smoothing=label_smoothing)
        self.plain_loss = SegmentationLoss(loss, task=task)

    def training(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (mean loss of the pixels, sum over the pictures of the share of pixels that are right)."""
        logits = model(images)
        with torch.no_grad():
            counted = targets != self.loss.ignore_index
            right = (self._painted(logits) == targets) & counted
            shares = right.flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp_min(1)
        return self.loss(logits, targets), shares.sum()

    def validation(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (sum of the pictures' losses, counts of `ConfusionMatrix`), at the masks' own size.

        Each picture's loss is its own, so that it does not matter which ones share a batch. Its logits in full size are
        made for it alone, too: a photograph that is seen at 256 pixels may have 12 million of them for each class.
        """
        matrix = ConfusionMatrix(self.classes, task=self.task)
        total = torch.zeros((), device=images.device)
        for one, truth in zip(torch.split(whole_logits(model, images), 1), torch.split(targets, 1), strict=True):
            logits = full_size(one, truth)
            total += self.plain_loss(logits, truth)
            matrix.add(self._painted(logits), truth)
        return total, matrix.counts.to(images.device)

    def no_sums(self) -> Tensor:
        return ConfusionMatrix(self.classes, task=self.task).counts

    def scores(self, sums: Tensor, pictures: int) -> dict[str, float]:  # noqa: ARG002  (others need their number)
        matrix = ConfusionMatrix(self.classes, task=self.task)
        matrix.counts = sums
        found = matrix.scores()
        named = {"mean_iou": found.mean_iou, "pixel_accuracy": found.pixel_accuracy, "mean_dice": found.mean_dice}
        return {name: 0.0 if math.isnan(score) else score for name, score in named.items()}

    def _painted(self, logits: Tensor) -> Tensor:
        # The most probable class is the one with the highest logit.
        return masks(logits if self.task == "multiclass" else probabilities(logits, self.task), self.task)


def whole_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits of whole pictures; of very large ones, tile by tile, so that memory does not end the run."""
    if images.shape[2] * images.shape[3] <= _MOST_PIXELS:
        logits: Tensor = model(images)
        return logits
    return sliding_window(model, images, tile=_TILE)


def full_size(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits in float32 at the height and width of the targets, bilinear."""
    size = targets.shape[-2:]
    logits = logits.float()
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size=size, mode="bilinear")

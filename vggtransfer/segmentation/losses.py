"""Losses for masks: cross-entropy, focal, Dice and Lovasz, and sums of two of them."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.errors import OptionError
from vggtransfer.segmentation.lovasz import lovasz_hinge, lovasz_softmax
from vggtransfer.segmentation.task_names import LossName, SegmentationTask

_FOCUS = 2.0  # the exponent that Lin et al. 2017 found best


class SegmentationLoss:
    """Compares logits [batch, classes, height, width] with masks, in float32 at least.

    The targets are classes [batch, height, width] for `"multiclass"`; 0 and 1, [batch, height, width], for `"binary"`
    (one class); 0 and 1, [batch, classes, height, width], for `"multilabel"`. Any integer type will do.

    Args:
        name: What to minimise. A sum weighs both parts alike.
            `"ce"`: cross-entropy, of each class by itself unless the task is `"multiclass"`.
            `"focal"`: the same, each pixel weighted by (1 - probability of the truth)^2 (Lin et al. 2017, equation 4).
            `"dice"`: 1 - Dice, of all pixels of the batch together (Milletari et al. 2016, with plain sums below).
            `"lovasz"`: the Lovasz extension of 1 - IoU, of all pixels together (Berman et al. 2018): softmax for
            `"multiclass"`, hinge for the others.
            The last two average over the classes that the targets show; without any they are zero.
        task: What the masks say.
        ignore_index: Target of pixels that do not count.
        class_weights: [classes], for `"ce"` and `"focal"`: weight of the pixels of each class, see
            `median_frequency_weights`; the mean is a weighted one. Of tasks other than `"multiclass"`: weight of the
            pixels where the class is there, against 1 where it is not.
        label_smoothing: Of `"ce"`: probability shared out over all classes (Szegedy et al. 2016, section 7).
    """

    def __init__(
        self,
        name: LossName = "ce",
        *,
        task: SegmentationTask = "multiclass",
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        if name not in get_args(LossName):
            raise OptionError(f"loss='{name}' is not possible: use {', '.join(get_args(LossName))}")
        self.parts = name.split("+")
        self.task, self.ignore_index = task, ignore_index
        self.class_weights, self.label_smoothing = class_weights, label_smoothing

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss, a scalar; zero if no pixel counts."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        with torch.autocast(logits.device.type, enabled=False):
            return sum((self._part(part, logits, targets) for part in self.parts), logits.new_zeros(()))

    def _part(self, part: str, logits: Tensor, targets: Tensor) -> Tensor:
        multiclass = self.task == "multiclass"
        if part in ("ce", "focal"):
            pixelwise = softmax_cross_entropy if multiclass else sigmoid_cross_entropy
            return pixelwise(
                logits,
                targets,
                ignore_index=self.ignore_index,
                class_weights=None if self.class_weights is None else self.class_weights.to(logits),
                label_smoothing=self.label_smoothing if part == "ce" else 0.0,
                focus=_FOCUS if part == "focal" else 0.0,
            )
        if multiclass:
            counted = targets != self.ignore_index
            # Before the pixels are picked out, while the classes are far apart: several times as fast.
            probabilities, labels = logits.softmax(dim=1).movedim(1, -1)[counted], targets[counted].long()
            if not len(labels):
                return logits.sum() * 0
            return (softmax_dice if part == "dice" else lovasz_softmax)(probabilities, labels)
        losses = []
        for scores, truth in zip(logits.unbind(1), _by_class(targets).unbind(1), strict=True):
            counted = truth != self.ignore_index
            if (truth[counted] == 1).any():
                losses.append((sigmoid_dice if part == "dice" else lovasz_hinge)(scores[counted], truth[counted] == 1))
        return torch.stack(losses).mean() if losses else logits.sum() * 0


def softmax_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None,
    label_smoothing: float = 0.0,
    focus: float = 0.0,
) -> Tensor:
    """Weighted mean over the pixels that count of (1 - probability of the truth)^focus times its cross-entropy.

    Args:
        logits: [batch, classes, height, width].
        targets: Classes [batch, height, width].
        ignore_index: Target of pixels that do not count.
        class_weights: [classes]; None for equal ones.
        label_smoothing: Probability shared out over all classes.
        focus: The exponent; 0 is plain cross-entropy.
    """
    targets = targets.long()
    losses = F.cross_entropy(
        logits,
        targets,
        weight=class_weights,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    counted = targets != ignore_index
    known = targets.where(counted, 0)
    if focus:
        right = logits.softmax(dim=1).gather(1, known[:, None])[:, 0]
        losses = losses * (1 - right) ** focus
    total = counted.sum() if class_weights is None else (class_weights[known] * counted).sum()
    return losses.sum() / total.clamp_min(torch.finfo(losses.dtype).tiny)


def sigmoid_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None,
    label_smoothing: float = 0.0,
    focus: float = 0.0,
) -> Tensor:
    """The same for classes that are each there or not.

    Args:
        logits: [batch, classes, height, width].
        targets: 0 or 1, of the same shape, or without the axis of classes if there is one.
        ignore_index: Target of pixels that do not count.
        class_weights: Weight of the pixels where the class is there, [classes]; None for 1.
        label_smoothing: Probability shared out over both answers.
        focus: The exponent; 0 is plain cross-entropy.
    """
    targets = _by_class(targets)
    counted = targets != ignore_index
    truth = (targets == 1).to(logits.dtype)
    aims = truth * (1 - label_smoothing) + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, aims, reduction="none")
    if focus:
        right = torch.where(truth == 1, logits, -logits).sigmoid()
        losses = losses * (1 - right) ** focus
    weights = counted.to(logits.dtype)
    if class_weights is not None:
        weights = weights * torch.where(truth == 1, class_weights[:, None, None], 1.0)
    return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def softmax_dice(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean, over the classes that occur, of 1 - 2 * overlap / (probabilities + truth), summed over pixels.

    Args:
        probabilities: [pixels, classes].
        labels: Classes, int64 [pixels]; at least one.
    """
    truth = labels[:, None] == torch.arange(probabilities.shape[1], device=labels.device)
    pixels = truth.sum(dim=0)
    # Not `index_add` of the few that matter: its float32 sums stop growing at 2^24 pixels.
    overlap = probabilities.where(truth, 0).sum(dim=0)
    dice = 2 * overlap / (probabilities.sum(dim=0) + pixels)
    return 1 - dice[pixels > 0].mean()


def sigmoid_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - 2 * overlap / (probabilities + truth) of one class, summed over pixels.

    Args:
        logits: [pixels].
        truth: Whether the class is there, bool [pixels]; somewhere it is.
    """
    probabilities = logits.sigmoid()
    return 1 - 2 * (probabilities * truth).sum() / (probabilities.sum() + truth.sum())


def _by_class(targets: Tensor) -> Tensor:
    """[batch, classes, height, width], whether or not a single class has an axis."""
    return targets if targets.dim() == 4 else targets[:, None]

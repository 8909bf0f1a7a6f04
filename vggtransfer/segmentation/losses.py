"""Losses for masks: cross-entropy, focal, Dice and Lovasz, and sums of two of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.segmentation.lovasz import lovasz_hinge, lovasz_softmax
from vggtransfer.segmentation.task_names import LossName, SegmentationTask


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
        raise NotImplementedError

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss, a scalar; zero if no pixel counts."""
        raise NotImplementedError

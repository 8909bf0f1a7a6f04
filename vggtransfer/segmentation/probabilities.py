"""From logits to probabilities to masks, for each task, and the average over mirror images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vggtransfer.segmentation.task_names import SegmentationTask

Scorer = Callable[[Tensor], Tensor]
"""From pictures [batch, channels, height, width] to scores [batch, classes, height, width]."""


def probabilities(logits: Tensor, task: SegmentationTask) -> Tensor:
    """Probability of each class in each pixel, in float32, [batch, classes, height, width] like the logits.

    Those of `"multiclass"` add up to 1; the others are each class's own.
    """
    return logits.float().softmax(dim=1) if task == "multiclass" else logits.float().sigmoid()


def masks(scores: Tensor, task: SegmentationTask) -> Tensor:
    """What probabilities decide.

    Args:
        scores: Probabilities [batch, classes, height, width]; for `"multiclass"`, logits do as well.
        task: What they are probabilities of.

    Returns:
        `"multiclass"`: the most probable class, int64 [batch, height, width]. `"binary"`: 1 where the probability is
        at least one half, else 0, of the same shape. `"multilabel"`: the same for each class,
        [batch, classes, height, width].
    """
    match task:
        case "multiclass":
            return scores.argmax(dim=1)
        case "binary":
            return (scores[:, 0] >= 0.5).long()
        case "multilabel":
            return (scores >= 0.5).long()


def with_mirror_image(scorer: Scorer) -> Scorer:
    """Averages scores over a picture and its mirror image; give it probabilities rather than logits."""

    def averaged(pictures: Tensor) -> Tensor:
        mirrored = scorer(pictures.flip(-1)).flip(-1)
        return torch.lerp(scorer(pictures), mirrored, 0.5)

    return averaged

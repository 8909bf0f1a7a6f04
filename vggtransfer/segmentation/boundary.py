"""BoundaryF1: whether the outlines of masks lie where they should."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.segmentation.task_names import SegmentationTask


class BoundaryF1:
    """F1 of boundary pixels within a tolerance, of each class and picture (Csurka et al. 2013, section 2.2).

    Args:
        classes: Number of classes.
        task: What the masks say.
        ignore_index: Truth of pixels that do not count; no boundary runs along them.
        tolerance: Distance at which two boundary pixels still meet, as a share of the picture's diagonal.

    Attributes:
        sums: Sum of the F1 of each class over the pictures with a boundary of it in the truth or the prediction,
            float64 [classes]. May be added up over processes, as may `pictures`.
        pictures: Number of those pictures, int64 [classes].
    """

    def __init__(
        self,
        classes: int,
        *,
        task: SegmentationTask = "multiclass",
        ignore_index: int = 255,
        tolerance: float = 0.0075,
    ) -> None:
        self.classes, self.task, self.ignore_index, self.tolerance = classes, task, ignore_index, tolerance
        self.sums = torch.zeros(classes, dtype=torch.float64)
        self.pictures = torch.zeros(classes, dtype=torch.int64)

    def add(self, predicted: Tensor, targets: Tensor) -> None:
        """Compares a batch; shapes as for `ConfusionMatrix.add`."""
        height, width = targets.shape[-2:]
        radius = max(1.0, self.tolerance * math.hypot(height, width))
        for prediction, truth in zip(predicted, targets, strict=True):
            counted = truth != self.ignore_index
            shown = self._shown(prediction, truth)
            outlines = [self._boundaries(mask, counted, shown) for mask in (prediction, truth)]
            near = [within(outline, radius) for outline in outlines]
            found, true = (outline.sum(dim=(1, 2)) for outline in outlines)
            precise = (outlines[0] & near[1]).sum(dim=(1, 2)) / found
            recalled = (outlines[1] & near[0]).sum(dim=(1, 2)) / true
            # Without a boundary on one side only, nothing of the other was met.
            f1 = (2 * precise * recalled / (precise + recalled)).nan_to_num(0.0).cpu().double()
            self.sums[shown.cpu()] += f1
            self.pictures[shown.cpu()] += ((found > 0) | (true > 0)).cpu()

    def _shown(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """The classes that may have a boundary: of many classes, a picture shows few."""
        if self.task != "multiclass":
            return torch.arange(self.classes, device=truth.device)
        found: Tensor = torch.unique(torch.cat([prediction.flatten().long(), truth.flatten().long()]))
        return found[found != self.ignore_index]

    def _boundaries(self, mask: Tensor, counted: Tensor, shown: Tensor) -> Tensor:
        """Of each class that is shown, bool [shown, height, width]."""
        if self.task == "multiclass":
            return boundaries(mask == shown.view(-1, 1, 1), counted)
        return boundaries((mask == 1).view(self.classes, *mask.shape[-2:]), counted)

    def scores(self) -> tuple[float, ...]:
        """Mean over the pictures, of each class; NaN for classes without any boundary."""
        return tuple((self.sums / self.pictures).tolist())


def boundaries(masks: Tensor, counted: Tensor) -> Tensor:
    """Pixels of masks with one that does not belong to the mask, and counts, among their eight neighbours.

    Args:
        masks: bool [classes, height, width].
        counted: Which pixels count, bool, of the same shape or [height, width].
    """
    outside = F.pad(~masks & counted, (1, 1, 1, 1))
    rows = outside[:, :-2] | outside[:, 1:-1] | outside[:, 2:]
    beside = rows[:, :, :-2] | rows[:, :, 1:-1] | rows[:, :, 2:]
    return masks & counted & beside


def within(points: Tensor, radius: float) -> Tensor:
    """Pixels that have one of the points within a Euclidean distance.

    Args:
        points: bool [classes, height, width].
        radius: In pixels.
    """
    near = torch.zeros(points.shape, dtype=torch.bool)
    for place, one in enumerate(points.cpu()):
        if one.any():  # else OpenCV's distances mean nothing
            elsewhere = (~one).numpy().view(np.uint8)
            distances = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            near[place] = torch.from_numpy(distances <= radius)
    return near.to(points.device)

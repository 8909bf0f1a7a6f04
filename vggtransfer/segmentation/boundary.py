"""BoundaryF1: whether the outlines of masks lie where they should."""

from __future__ import annotations

import torch
from torch import Tensor

from vggtransfer.segmentation.task_names import SegmentationTask


class BoundaryF1:
    """F1 of boundary pixels within a tolerance, of each class and picture (Csurka et al. 2013, section 2.2).

    Args:
        classes: Number of classes.
        task: What the masks say.
        ignore_index: Truth of pixels that do not count; no boundary runs along them.
        tolerance: Distance at which two boundary pixels still meet, as a share of the picture's diagonal.

    Attributes:
        sums: Sum of the F1 of each class over the pictures that show it in the truth or the prediction, float64
            [classes]. May be added up over processes, as may `pictures`.
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
        """Compares a batch; shapes as for `ConfusionMatrix.add`, batch axis included."""
        raise NotImplementedError

    def scores(self) -> tuple[float, ...]:
        """Mean over the pictures, of each class; NaN for classes that no picture showed."""
        return tuple((self.sums / self.pictures).tolist())

"""How often classes occur in masks, and weights that make up for it."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassFrequencies:
    """Counts the pixels of each class, mask by mask.

    Args:
        classes: Number of classes.
        ignore_index: Value of pixels that do not count.

    Attributes:
        pixels: Pixels of each class, int64 [classes].
        pixels_beside: Pixels of all masks that show the class, those of other classes included, int64 [classes].
    """

    def __init__(self, classes: int, *, ignore_index: int = 255) -> None:
        self.ignore_index = ignore_index
        self.pixels = torch.zeros(classes, dtype=torch.int64)
        self.pixels_beside = torch.zeros(classes, dtype=torch.int64)

    def add(self, mask: Tensor) -> None:
        """Counts one mask of classes [height, width]."""
        counted = mask[mask != self.ignore_index].flatten().long().cpu()
        counts = torch.bincount(counted, minlength=len(self.pixels))
        self.pixels += counts
        self.pixels_beside += torch.where(counts > 0, counts.sum(), 0)


def median_frequency_weights(frequencies: ClassFrequencies) -> Tensor:
    """Weights [classes], float32: the median of the classes' frequencies, divided by each one's.

    The frequency is that among the pixels of the masks that show the class (Eigen & Fergus 2015, section 6.3). Classes
    that no mask shows do not count for the median and get the weight 1.
    """
    frequency = frequencies.pixels / frequencies.pixels_beside
    seen = frequencies.pixels > 0
    if not seen.any():
        return torch.ones(len(seen))
    return torch.where(seen, frequency[seen].quantile(0.5) / frequency, 1.0)

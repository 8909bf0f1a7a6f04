"""Weights that make up for how much of the training masks each class takes."""

from __future__ import annotations

import torch
from torch import Tensor

from vggtransfer.segmentation.class_weights import ClassFrequencies, median_frequency_weights
from vggtransfer.segmentation.pictures import MaskedPictures


def class_balance(pictures: MaskedPictures) -> Tensor:
    """Weights [classes] for `SegmentationLoss`.

    By median frequency where each pixel has one class; else, of each class, the pixels without it by those with it.
    """
    if pictures.coding.task == "multiclass":
        frequencies = ClassFrequencies(len(pictures.coding.names))
        for sample in pictures.train:
            counts = torch.tensor(pictures.pixels[sample.path])
            frequencies.pixels += counts
            frequencies.pixels_beside += torch.where(counts > 0, counts.sum(), 0)
        return median_frequency_weights(frequencies)
    every = sum(height * width for height, width in (pictures.sizes[sample.path] for sample in pictures.train))
    there = torch.tensor([pictures.pixels[sample.path] for sample in pictures.train]).sum(dim=0)
    return (every - there) / there.clamp_min(1)

"""The Lovasz extension of the Jaccard loss: a convex surrogate that minimises 1 - IoU itself.

Berman, Rannen Triki & Blaschko, "The Lovasz-Softmax loss", CVPR 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def lovasz_softmax(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean, over the classes that occur, of the Lovasz extension at the probabilities' errors (equations 11 and 12).

    Args:
        probabilities: [pixels, classes].
        labels: Classes, int64 [pixels]; at least one.
    """
    present = torch.unique(labels)
    truth = labels == present[:, None]
    errors = (truth.to(probabilities.dtype) - probabilities.T[present]).abs()
    return lovasz_extension(errors, truth).mean()


def lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """The Lovasz extension at the hinge losses of one class (section 2.2).

    Args:
        logits: [pixels].
        truth: Whether the class is there, bool [pixels].
    """
    signs = truth.to(logits.dtype) * 2 - 1
    return lovasz_extension(F.relu(1 - logits * signs)[None], truth[None])[0]


def lovasz_extension(errors: Tensor, truth: Tensor) -> Tensor:
    """Interpolates 1 - IoU, a function of which pixels are wrong, to how wrong they are (definition 1, algorithm 1).

    Args:
        errors: At least 0, [classes, pixels].
        truth: Whether a pixel belongs to the class, bool [classes, pixels].

    Returns:
        [classes].
    """
    ordered, order = errors.sort(dim=1, descending=True)
    # Long before 2^24 pixels, sums of ones in float32 would stop growing.
    found = truth.gather(1, order).to(torch.float64).cumsum(dim=1)
    total = found[:, -1:]
    position = torch.arange(1, errors.shape[1] + 1, dtype=torch.float64, device=errors.device)
    jaccard = 1 - (total - found) / (total + position - found)
    steps = jaccard.diff(dim=1, prepend=jaccard.new_zeros(len(jaccard), 1))
    return (ordered * steps.to(ordered.dtype)).sum(dim=1)

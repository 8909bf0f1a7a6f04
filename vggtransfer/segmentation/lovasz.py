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
        truth: Whether a pixel belongs to the class, bool [classes, pixels]; of each class, one does at least.

    Returns:
        [classes].
    """
    ordered, order = errors.sort(dim=1, descending=True)
    ordered_truth = truth.gather(1, order)
    missed = ordered_truth.cumsum(dim=1)
    total = missed[:, -1:]
    position = torch.arange(1, errors.shape[1] + 1, device=errors.device)
    # If all pixels up to here are wrong. Counted in integers: differences of 1 - IoU between neighbours would drown in
    # rounding. A missed pixel costs the intersection one, any other adds one to the union.
    intersection, union = total - missed, total + position - missed
    steps = torch.where(ordered_truth, 1 / union, intersection / (union * (union - 1)))
    return (ordered * steps.to(ordered.dtype)).sum(dim=1)

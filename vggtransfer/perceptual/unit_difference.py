"""LPIPS at one layer as one operation of autograd: it computes its gradient at once and keeps only that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_EPSILON = 1e-10  # of the published implementation
_PIECE = 2**18  # values at once on a CPU: what lies between the steps stays in its cache


def unit_length(maps: Tensor) -> Tensor:
    """Scales the vectors in the last axis to length 1 in float32; zero vectors and their gradients stay zero."""
    maps = maps.float()
    lengths = torch.linalg.vector_norm(maps, dim=-1, keepdim=True)
    # Rounded as in `_compare`, so that the distance of equal maps is 0.
    result: Tensor = maps * (lengths + _EPSILON).reciprocal().masked_fill(lengths == 0, 0.0)
    return result


def weighted_difference(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted squared distance between unit vectors at each position: Zhang et al. 2018, equation 1, before the mean.

    Args:
        maps: [batch, height, width, channels].
        target: `unit_length` of the target's maps.
        weight: [channels], float32.

    Returns:
        float32 [batch, height, width].
    """
    if torch.is_grad_enabled() and target.requires_grad:
        return ((unit_length(maps) - target).square() * weight).sum(dim=-1)
    result: Tensor = _WeightedDifference.apply(maps, target, weight)
    return result


class _WeightedDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        result = maps.new_empty(maps.shape[:3], dtype=torch.float32)
        gradient = torch.empty_like(maps) if ctx.needs_input_grad[0] else None
        for here in _pieces(maps):
            there = (min(here[0], target.shape[0] - 1), here[1])
            result[here], part = _compare(maps[here].float(), target[there], weight, wants=gradient is not None)
            if gradient is not None:
                gradient[here] = part
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (per_position,) = ctx.saved_tensors
        result = torch.empty_like(per_position)
        for here in _pieces(result):
            torch.mul(per_position[here], gradient[here][..., None], out=result[here])
        return result, None, None


def _pieces(maps: Tensor) -> Iterator[tuple[int, slice]]:
    """Picture and rows of each piece."""
    height = maps.shape[1]
    rows = max(1, _PIECE // maps[0, 0].numel()) if maps.device.type == "cpu" else height
    return ((picture, slice(top, top + rows)) for picture in range(maps.shape[0]) for top in range(0, height, rows))


def _compare(x: Tensor, target: Tensor, weight: Tensor, *, wants: bool) -> tuple[Tensor, Tensor]:
    """The weighted distance at each position, [..., 1] less than x, and its gradient if that is wanted.

    With u = x / (|x| + e) and s = weight (u - target): the distance is s . (u - target), and its gradient
    2 s / (|x| + e) - 2 x (x . s) / (|x| (|x| + e)^2), and 0 where x is.
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = (length + _EPSILON).reciprocal_()
    difference = (x * inverse).sub_(target)
    weighted = difference * weight
    distance = difference.mul_(weighted).sum(dim=-1)
    if wants:
        along = torch.mul(x, weighted, out=difference).sum(dim=-1, keepdim=True)
        weighted.addcmul_(x, along.mul_(inverse).div_(length.clamp_min(_EPSILON)), value=-1)
        weighted.mul_(inverse.mul_(2).masked_fill_(length == 0, 0.0))
    return distance, weighted

"""LPIPS at one layer, as one operation of autograd: its gradient is finished in the forward pass and kept, nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_EPSILON = 1e-10  # of the published implementation


def unit_length(maps: Tensor) -> Tensor:
    """Scales the vectors in the last axis to length 1 in float32; zero vectors and their gradients stay zero."""
    maps = maps.float()
    squares = maps.square().sum(dim=-1, keepdim=True)
    lengths = squares.masked_fill(squares == 0, 1.0).sqrt()
    return maps / (lengths + _EPSILON)


def weighted_difference(maps: Tensor, target: Tensor, weight: Tensor, *, gradient_type: torch.dtype) -> Tensor:
    """Weighted squared distance between unit vectors at each position: Zhang et al. 2018, equation 1, before the mean.

    Args:
        maps: [batch, height, width, channels].
        target: `unit_length` of the target's maps.
        weight: [channels], float32.
        gradient_type: In which the gradient is kept.

    Returns:
        float32 [batch, height, width].
    """
    if torch.is_grad_enabled() and target.requires_grad:
        return ((unit_length(maps) - target).square() * weight).sum(dim=-1)
    result: Tensor = _WeightedDifference.apply(maps, target, weight, gradient_type)
    return result


class _WeightedDifference(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, maps: Tensor, target: Tensor, weight: Tensor, gradient_type: torch.dtype
    ) -> Tensor:
        x = maps.float()
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = (length + _EPSILON).reciprocal_()
        difference = (x * inverse).sub_(target)
        weighted = difference * weight
        result = difference.mul_(weighted).sum(dim=-1)
        if ctx.needs_input_grad[0]:
            # With u = x / (|x| + e) and s = 2 weight (u - v): dx = s / (|x| + e) - x (x . s) / (|x| (|x| + e)^2),
            # and 0 where x is.
            along = torch.mul(x, weighted, out=difference).sum(dim=-1, keepdim=True)
            weighted.addcmul_(x, along.mul_(inverse).div_(length.clamp_min(_EPSILON)), value=-1)
            weighted.mul_(inverse.mul_(2).masked_fill_(length == 0, 0.0))
            ctx.save_for_backward(weighted.to(gradient_type))
        ctx.maps_type = maps.dtype
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (per_position,) = ctx.saved_tensors
        return (per_position * gradient.to(per_position.dtype)[..., None]).to(ctx.maps_type), None, None, None

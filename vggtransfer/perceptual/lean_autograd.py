"""The trunk as one operation of autograd that keeps bits where torch would keep every map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vggtransfer.errors import TrainingError
from vggtransfer.perceptual.steps import Saved, Step


class LeanTrunk(torch.autograd.Function):
    """From normalised pictures to taps, [batch, height, width, channels] each, in the type of their gradient.

    The gradient is the one torch would compute. It cannot be differentiated again; trying to is a `TrainingError`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, steps: Sequence[tuple[str, Step]], layers: frozenset[str], gradient_type: torch.dtype
    ) -> tuple[Tensor, ...]:
        taps: list[Tensor] = []
        saved: list[Tensor] = []
        counts: list[int] = []
        for name, step in steps:
            x, kept = step.saving(x)
            saved += kept
            counts.append(len(kept))
            if name in layers:
                taps.append(x.to(gradient_type))
        ctx.save_for_backward(*saved)
        ctx.counts, ctx.steps, ctx.layers, ctx.gradient_type = counts, steps, layers, gradient_type
        ctx.set_materialize_grads(False)
        return tuple(taps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        with torch.no_grad():
            result = _backward(ctx, list(gradients))
        if torch.is_grad_enabled() and result is not None:
            # Under create_graph=True: complain only if somebody really goes on to differentiate.
            result = _NotTwice.apply(result, *[each for each in gradients if each is not None])
        return result, None, None, None


def _backward(ctx: Any, gradients: list[Tensor | None]) -> Tensor | None:
    saved = list(ctx.saved_tensors)
    total: Tensor | None = None
    for (name, step), count in zip(reversed(ctx.steps), reversed(ctx.counts), strict=True):
        if name in ctx.layers:
            gradient = gradients.pop()
            if gradient is not None:
                # The first is copied, because steps overwrite it.
                total = _own(gradient, ctx.gradient_type) if total is None else total.add_(gradient)
        kept: Saved = tuple(saved[len(saved) - count :])
        del saved[len(saved) - count :]
        if total is not None:
            total = step.backward(total, kept)
    return total


def _own(gradient: Tensor, kind: torch.dtype) -> Tensor:
    return gradient.to(kind, copy=True, memory_format=torch.contiguous_format)


class _NotTwice(torch.autograd.Function):
    """Passes a gradient on, whose own gradient nobody can have."""

    @staticmethod
    def forward(_ctx: Any, result: Tensor, *_gradients: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor) -> Any:
        raise TrainingError(
            "perceptual losses keep only signs for their gradient, which cannot be differentiated again (as gradient "
            "penalties do); for that, compare taps of a VGGEncoder yourself"
        )

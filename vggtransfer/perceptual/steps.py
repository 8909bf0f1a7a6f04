"""What a frozen trunk does one thing after the other, and back: each step keeps no more than its gradient needs.

A convolution keeps nothing, a ReLU one bit per value, a max pooling three bits per result. Maps are
[batch, height, width, channels] throughout, contiguous: the layout that CPUs and GPUs compute fastest in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.perceptual.bits import mask_, pack
from vggtransfer.perceptual.convolution import FrozenConvolution

Saved = tuple[Tensor, ...]


class Step(Protocol):
    """One step of the trunk."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the result; x stays as it is."""

    def saving(self, x: Tensor) -> tuple[Tensor, Saved]:
        """Returns the result and what `backward` needs."""

    def backward(self, gradient: Tensor, saved: Saved) -> Tensor:
        """Returns the gradient with respect to x, in the type of `gradient`, which may be overwritten."""


class ConvolutionStep:
    """A convolution with everything up to its ReLU, if that is part of it."""

    def __init__(self, convolution: FrozenConvolution) -> None:
        self._convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self._convolution(x)

    def saving(self, x: Tensor) -> tuple[Tensor, Saved]:
        y = self._convolution(x)
        return y, (pack(y),) if self._convolution.relu else ()

    def backward(self, gradient: Tensor, saved: Saved) -> Tensor:
        return self._convolution.backward(mask_(gradient, saved[0]) if saved else gradient)


class ReluStep:
    """A ReLU whose input is a tap."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()

    def saving(self, x: Tensor) -> tuple[Tensor, Saved]:
        y = x.relu()
        return y, (pack(y),)

    def backward(self, gradient: Tensor, saved: Saved) -> Tensor:
        return mask_(gradient, saved[0])


class ScaleStep:
    """BatchNorm in evaluation mode, where it could not be joined with the convolution, whose result is a tap.

    Args:
        scale: [channels].
        shift: [channels].
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        self._scale, self._shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self._shift.to(x), x, self._scale.to(x))

    def saving(self, x: Tensor) -> tuple[Tensor, Saved]:
        return self.forward(x), ()

    def backward(self, gradient: Tensor, saved: Saved) -> Tensor:  # noqa: ARG002
        return gradient.mul_(self._scale.to(gradient))


class MaxPoolStep:
    """2x2 max pooling; of equal values the first in reading order wins, as in torch."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = _columns(x)
        top, bottom = _rows(torch.maximum(left, right))
        return torch.maximum(top, bottom)

    def saving(self, x: Tensor) -> tuple[Tensor, Saved]:
        left, right = _columns(x)
        top, bottom = _rows(torch.maximum(left, right))
        # A difference and its sign: comparisons of floats are several times slower on CPUs.
        return torch.maximum(top, bottom), (pack((right - left).relu_()), pack((bottom - top).relu_()), _size(x))

    def backward(self, gradient: Tensor, saved: Saved) -> Tensor:
        right_wins, bottom_wins, size = saved
        batch, height, width, channels = gradient.shape
        rows = gradient.new_empty(batch, 2 * height, width, channels)
        _split(gradient, bottom_wins, rows[:, 0::2], rows[:, 1::2])
        full_height, full_width = size.tolist()
        cropped = full_height % 2 or full_width % 2
        result = (gradient.new_zeros if cropped else gradient.new_empty)(batch, full_height, full_width, channels)
        inner = result[:, : 2 * height, : 2 * width]
        _split(rows, right_wins, inner[:, :, 0::2], inner[:, :, 1::2])
        return result


class AveragePoolStep:
    """2x2 average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = _columns(x)
        top, bottom = _rows(left + right)
        return (top + bottom).mul_(0.25)

    def saving(self, x: Tensor) -> tuple[Tensor, Saved]:
        return self.forward(x), (_size(x),)

    def backward(self, gradient: Tensor, saved: Saved) -> Tensor:
        height, width = saved[0].tolist()
        spread = (gradient / 4).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        return F.pad(spread, (0, 0, 0, width - spread.shape[2], 0, height - spread.shape[1]))


class RecomputedStep:
    """A step whose gradient needs its input, which is kept, and its operations, which are done again.

    Args:
        function: From maps to maps, by operations that autograd knows.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x).contiguous()

    def saving(self, x: Tensor) -> tuple[Tensor, Saved]:
        return self.forward(x), (x,)

    def backward(self, gradient: Tensor, saved: Saved) -> Tensor:
        with torch.enable_grad():
            x = saved[0].to(gradient.dtype).requires_grad_()
            (result,) = torch.autograd.grad(self._function(x), x, gradient)
        return result.contiguous()


def hanning_pooling(x: Tensor) -> Tensor:
    """L2 pooling by 2 with a 3x3 Hanning window, sqrt(window * x^2): Ding et al. 2020, equation 3.

    Args:
        x: [batch, height, width, channels]; the result has ceil(height / 2) x ceil(width / 2) positions.
    """
    # In float32: float16 knows neither the squares of large maps nor 1e-12, without which the gradient of 0 is NaN.
    squares = F.pad(x.float().square(), (0, 0, 1, 1 + x.shape[2] % 2, 1, 1 + x.shape[1] % 2))
    rows = squares[:, 0:-2:2] + 2 * squares[:, 1:-1:2] + squares[:, 2::2]
    both = rows[:, :, 0:-2:2] + 2 * rows[:, :, 1:-1:2] + rows[:, :, 2::2]
    return (both / 16 + 1e-12).sqrt().to(x.dtype)


def _columns(x: Tensor) -> tuple[Tensor, Tensor]:
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return x[:, :height, 0:width:2], x[:, :height, 1:width:2]


def _rows(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, 0::2], x[:, 1::2]


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.shape[1:3])


def _split(gradient: Tensor, bits: Tensor, first: Tensor, second: Tensor) -> None:
    """Hands each value to `second` where its bit is 1, else to `first`, and 0 to the other. Overwrites gradient."""
    second.copy_(mask_(gradient.clone(), bits))
    torch.sub(gradient, second, out=first)

"""Upsampling and convolving in one step, for less than either costs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.segmentation.recomputation import recomputed


def upsampling_kernel(weight: Tensor) -> Tensor:
    """Kernel of the transposed convolution that equals nearest upsampling by 2 and then a 3x3 convolution.

    Of the 3x3 values that a convolution reads from an upsampled map, several are copies of one another. Adding up the
    weights that meet the same copy leaves 2x2 of them for each of the four positions in a 2x2 square of the result
    (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"), together a 4x4 kernel with
    stride 2 and padding 1: 4 multiplications per value instead of 9, on a map that nobody has to upsample. The two
    are equal but for rounding, at the borders as well, where both see zeros.

    Args:
        weight: Of the convolution, [out, in, 3, 3].

    Returns:
        Weight [in, out, 4, 4] for `F.conv_transpose2d(x, weight, stride=2, padding=1)`.
    """
    upper, middle, lower = weight.unbind(2)
    rows = torch.stack([lower, middle + lower, upper + middle, upper], dim=2)
    left, middle, right = rows.unbind(3)
    return torch.stack([right, middle + right, left + middle, left], dim=3).transpose(0, 1)


def upsampled_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution with padding 1 of a map upsampled by 2 (nearest); the larger kernel is not kept for training.

    Args:
        x: [batch, in, height, width].
        weight: [out, in, 3, 3].
        bias: [out], or None.

    Returns:
        [batch, out, 2 * height, 2 * width].
    """

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose2d(x, upsampling_kernel(weight), bias, stride=2, padding=1)

    return recomputed(convolve, x, weight, bias)

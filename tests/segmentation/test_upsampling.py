from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.segmentation.upsampling import upsampled_convolution


def test_equals_nearest_upsampling_and_a_convolution_with_gradients_and_at_the_borders() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 3, 4), (6, 5, 3, 3), (6,))
    )
    direct = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    ours = upsampled_convolution(x, weight, bias)
    torch.testing.assert_close(ours, direct)
    back = torch.randn(direct.shape, generator=generator, dtype=torch.float64)
    for found, expected in zip(
        torch.autograd.grad(ours, (x, weight, bias), back),
        torch.autograd.grad(direct, (x, weight, bias), back),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_keeps_its_arguments_and_not_the_larger_kernel() -> None:
    x, weight = (torch.randn(shape, requires_grad=True) for shape in ((2, 5, 3, 4), (6, 5, 3, 3)))
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        upsampled_convolution(x, weight, None)
    assert {shape for shape in kept if len(shape) == 4} == {tuple(x.shape), tuple(weight.shape)}

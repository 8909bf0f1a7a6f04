from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.segmentation.recomputation import convolved_activation


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.Identity])
def test_values_gradients_and_statistics_are_those_of_the_layers(kind: type[nn.Module], training: bool) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 1), kind(4), nn.Conv2d(4, 5, 3)).train(training)
    plain = copy.deepcopy(ours)
    images = torch.randn(2, 3, 6, 7)
    for _ in range(2):  # the second time with statistics that are no longer the initial ones
        found = convolved_activation(ours[0](images), ours[1], ours[2])
        expected = plain[2](F.relu(plain[1](plain[0](images))))
        assert torch.equal(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        for mine, other in zip(ours.parameters(), plain.parameters(), strict=True):
            assert mine.grad is not None
            assert torch.equal(mine.grad, other.grad)
        for mine, other in zip(ours.buffers(), plain.buffers(), strict=True):
            assert torch.equal(mine, other)


def test_convolves_once_and_keeps_what_goes_into_batch_norm() -> None:
    norm, convolution = nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)
    kept: list[int] = []
    convolved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    def convolve(x: Tensor) -> Tensor:
        convolved.append(convolution(x))
        return convolved[-1]

    x = torch.randn(2, 4, 6, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = convolved_activation(x * 1, norm, convolve)
        activations = [pointer for pointer in kept if pointer != x.data_ptr()]
    result.sum().backward()
    assert x.grad is not None
    assert len(activations) == 1
    assert len(convolved) == 1

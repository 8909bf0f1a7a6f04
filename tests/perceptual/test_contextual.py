from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vggtransfer import ContextualLoss, VGGEncoder
from vggtransfer.errors import OptionError

Pair = tuple[Tensor, Tensor]


def unit_rows(encoder: VGGEncoder, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of relu3_2 minus the target's mean, of unit length, [batch, positions, channels], in double precision."""
    encoder = encoder.eval()
    maps = [encoder.features(picture, layers=["relu3_2"])["relu3_2"].double().flatten(2) for picture in (x, y)]
    mean = maps[1].mean(dim=2, keepdim=True)
    return tuple(((each - mean) / (each - mean).norm(dim=1, keepdim=True)).transpose(1, 2) for each in maps)


def test_it_is_the_formula_whatever_is_compared_at_once(small: VGGEncoder, pair: Pair) -> None:
    x, y = unit_rows(small, *pair)
    distance = 1 - x @ y.transpose(1, 2)
    relative = distance / (distance.amin(dim=2, keepdim=True) + 1e-5)
    weight = torch.exp((1 - relative) / 0.5)
    similarity = (weight / weight.sum(dim=2, keepdim=True)).amax(dim=1).mean(dim=1)
    results = []
    for rows in (7, 10_000):
        loss = ContextualLoss({"relu3_2": 2.0}, net=small, rows=rows, reduction="none")
        picture = pair[0].clone().requires_grad_()
        value = loss(picture, pair[1])
        value.sum().backward()
        torch.testing.assert_close(value.double(), -2 * similarity.log(), rtol=1e-4, atol=0)
        results.append(picture.grad)
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-6)


def test_cobi_is_the_formula(small: VGGEncoder, pair: Pair) -> None:
    x, y = unit_rows(small, *pair)
    height, width = 12, 10
    place = torch.tensor([(row, column) for row in range(height) for column in range(width)]).double() / height
    total = 1 - x @ y.transpose(1, 2) + 0.3 * (place[:, None] - place[None]).norm(dim=2)
    loss = ContextualLoss({"relu3_2": 1.0}, net=small, spatial_weight=0.3, rows=50, reduction="none")
    torch.testing.assert_close(loss(*pair).double(), total.amin(dim=2).mean(dim=1), rtol=1e-4, atol=0)


def test_a_shifted_picture_is_near_and_sizes_may_differ(small: VGGEncoder) -> None:
    torch.manual_seed(0)
    y = torch.rand(1, 3, 64, 64)
    loss = ContextualLoss(net=small)
    near, far = loss(y.roll((16, 16), (2, 3))[..., :48], y), loss(torch.rand(1, 3, 64, 48) / 2, y)
    assert near < 0.8 * far
    x = y.clone().requires_grad_()
    loss(x, y).backward()
    assert x.grad.isfinite().all()


def test_memory_does_not_grow_with_the_square_of_the_positions(small: VGGEncoder) -> None:
    loss = ContextualLoss({"relu1_1": 1.0}, net=small, rows=64)
    x = torch.rand(1, 3, 48, 48, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        loss(x, torch.rand(1, 3, 48, 48))
    assert max(kept) <= 64 * 48 * 48


def test_mistakes_are_named(small: VGGEncoder) -> None:
    for options in ({"bandwidth": 0}, {"rows": 0}, {"spatial_weight": -1.0}):
        with pytest.raises(OptionError, match="bandwidth must be above 0"):
            ContextualLoss(net=small, **options)

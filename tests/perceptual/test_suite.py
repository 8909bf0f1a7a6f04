from __future__ import annotations

import copy
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from vggtransfer import (
    DISTS,
    LPIPS,
    ContextualLoss,
    PerceptualLoss,
    PerceptualSuite,
    StyleLoss,
    TotalVariation,
    VGGEncoder,
)
from vggtransfer.errors import InputError, OptionError
from vggtransfer.perceptual.feature_loss import FeatureLoss
from vggtransfer.perceptual.trunk import LossTrunk

Pair = tuple[Tensor, Tensor]


def all_losses(net: VGGEncoder) -> dict[str, FeatureLoss]:
    return {
        "content": PerceptualLoss(net=net),
        "style": StyleLoss(net=net),
        "smooth": TotalVariation(),
        "lpips": LPIPS(net, heads=None),
        "dists": DISTS(net, heads=None),
        "contextual": ContextualLoss({"relu3_2": 1.0}, net=net),
    }


class Runs:
    """Counts the runs of trunks."""

    def __enter__(self) -> Runs:
        self.count = 0
        original = LossTrunk.taps

        def counted(trunk: LossTrunk, *arguments: object) -> object:
            self.count += 1
            return original(trunk, *arguments)

        self._patch = patch.object(LossTrunk, "taps", counted)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def test_a_suite_is_the_sum_of_its_losses_in_one_run_per_trunk_and_picture(small: VGGEncoder, pair: Pair) -> None:
    weights = [1.0, 100.0, 0.1, 2.0, 0.5, 0.3]
    x = pair[0].clone().requires_grad_()
    alone = {name: loss(x, pair[1]) for name, loss in all_losses(small).items()}
    expected = sum(weight * value.mean() for weight, value in zip(weights, alone.values(), strict=True))
    (expected_gradient,) = torch.autograd.grad(expected, x)

    losses = all_losses(copy.deepcopy(small))
    suite = PerceptualSuite(losses, weights=weights)
    with Runs() as runs:
        value = suite(x, pair[1])
    assert runs.count == 4  # DISTS has a trunk of its own, and there are two pictures
    assert losses["dists"].trunk.weights is losses["lpips"].trunk.weights
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(value, expected)
    assert (gradient - expected_gradient).norm() <= 1e-4 * expected_gradient.norm()
    for name, each in suite.values(*pair).items():
        torch.testing.assert_close(each, alone[name].detach())


def test_a_target_is_computed_once_as_long_as_it_is_the_same(small: VGGEncoder, pair: Pair) -> None:
    suite = PerceptualSuite([PerceptualLoss(net=small), LPIPS(small, heads=None)])
    x, y = pair[0], pair[1].clone()
    with Runs() as runs:
        first = suite(x, y)
        assert torch.equal(suite(x, y), first)
        assert runs.count == 3
        y.mul_(0.5)  # now it is another picture
        changed = suite(x, y)
        assert runs.count == 5
        assert not torch.equal(changed, first)
        suite(x, y.clone())
        suite(x, y.requires_grad_())  # its gradient has to be computed
        assert runs.count == 9
    suite.set_target(y.detach())
    with Runs() as runs:
        assert torch.equal(suite(x), changed)
        assert torch.equal(copy.deepcopy(suite)(x), changed)
    assert runs.count == 2


def test_a_target_remembered_in_inference_mode_serves_training(small: VGGEncoder, pair: Pair) -> None:
    suite = PerceptualSuite([ContextualLoss(net=small), PerceptualLoss(net=small), StyleLoss(net=small)])
    with torch.inference_mode():
        suite.set_target(pair[1])
        expected = suite(pair[0])
    x = pair[0].clone().requires_grad_()
    value = suite(x)
    value.backward()
    torch.testing.assert_close(value, expected)
    assert x.grad.norm() > 0


def test_losses_may_have_different_targets(small: VGGEncoder, pair: Pair) -> None:
    suite = PerceptualSuite(
        {"content": PerceptualLoss(net=small), "style": StyleLoss(net=small), "tv": TotalVariation()}
    )
    suite.set_target(pair[1], losses=["content"])
    with pytest.raises(OptionError, match=r"set_target\(y\) first"):
        suite(pair[0])
    painting = torch.rand(1, 3, 64, 96)
    suite.set_target(painting, losses=["style"])
    values = suite.values(pair[0])
    torch.testing.assert_close(values["content"], PerceptualLoss(net=small)(*pair))
    torch.testing.assert_close(values["style"], StyleLoss(net=small)(pair[0], painting))
    with pytest.raises(OptionError, match="did you mean 'style'"):
        suite.set_target(painting, losses=["stlye"])


def test_mistakes_are_named(small: VGGEncoder, pair: Pair) -> None:
    content = PerceptualLoss(net=small)
    for losses, weights in (([], None), ([content, PerceptualLoss(net=small)], None), ([content], [1.0, 2.0])):
        with pytest.raises(OptionError, match="losses"):
            PerceptualSuite(losses, weights=weights)
    x, y = pair
    for first, second, message in (
        (x, y[:, :, :40], "of the same height and width"),
        (x, y.repeat(2, 1, 1, 1), "one target for each picture"),
        (x[:, :1], y, r"expects 3 channels; build the loss with in_channels=1, or repeat"),
        (x.movedim(1, 3), y, "channels come before height and width"),
        (x[0], y, r"add a batch axis"),
        (x[..., :2, :2], y[..., :2, :2], "do not survive"),
        ((x * 255).to(torch.uint8), y, r"convert them to float"),
    ):
        with pytest.raises(InputError, match=message):
            content(first, second)
    for factor, shift, message in ((255, 0, "divide by 255"), (2, -1, r"\(images \+ 1\) / 2"), (torch.nan, 0, "NaN")):
        for first, second, name in ((x * factor + shift, y, "x: "), (x, y * factor + shift, "y: ")):
            with pytest.raises(InputError, match=name + ".*" + message):
                PerceptualLoss(net=small)(first, second)
    assert LPIPS("vgg16_bn_x0_25", heads=None, in_channels=1)(x[:, :1], y[:, :1]).shape == (2,)


def test_a_single_target_serves_a_batch(small: VGGEncoder, pair: Pair) -> None:
    for loss in all_losses(small).values():
        loss.reduction = "none"
        both = loss(pair[0], pair[1][:1])
        torch.testing.assert_close(both[1:], loss(pair[0][1:], pair[1][:1]), rtol=1e-4, atol=1e-7)


def test_going_back_twice_gives_the_same_gradients(small: VGGEncoder, pair: Pair) -> None:
    for name, loss in all_losses(small).items():
        x = pair[0].clone().requires_grad_()
        value = loss(x, pair[1]).sum()
        (first,) = torch.autograd.grad(value, x, retain_graph=True)
        (second,) = torch.autograd.grad(value, x)
        assert torch.equal(first, second), name
        assert first.norm() > 0, name


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_finite_where_pictures_are_equal_or_constant(kind: torch.dtype, small: VGGEncoder) -> None:
    grey, noise = torch.full((1, 3, 32, 32), 0.5), torch.rand(1, 3, 32, 32)
    for name, loss in all_losses(small).items():
        for x, y in ((noise, noise), (grey, grey), (torch.zeros_like(grey), grey), (noise, grey)):
            x, y = x.clone().requires_grad_(), y.clone()
            with torch.autocast("cpu", kind, enabled=kind != torch.float32):
                value = loss(x, y).sum()
            value.backward()
            assert value.dtype == torch.float32, name
            assert value.isfinite(), name
            assert x.grad.isfinite().all(), name


def test_an_empty_batch_is_named(small: VGGEncoder) -> None:
    nothing = torch.zeros(0, 3, 32, 32)
    with pytest.raises(InputError, match="there are no pictures"):
        LPIPS(small, heads=None)(nothing, nothing)

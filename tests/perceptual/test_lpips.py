from __future__ import annotations

from types import SimpleNamespace

import lpips as published
import pytest
import torch
from torch import Tensor, nn

from vggtransfer import LPIPS, VGGEncoder
from vggtransfer.errors import OptionError, WeightsError
from vggtransfer.perceptual.unit_difference import unit_length, weighted_difference

Pair = tuple[Tensor, Tensor]


@pytest.fixture
def peer(torchvision_features: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """The published implementation on our random weights."""
    tv = SimpleNamespace(vgg16=lambda **_: SimpleNamespace(features=torchvision_features))
    monkeypatch.setattr(published.pretrained_networks, "tv", tv)
    return lambda **options: published.LPIPS(net="vgg", verbose=False, pnet_rand=True, **options)


@pytest.mark.parametrize("options", [{}, {"version": "0.0"}, {"spatial": True}])
def test_values_layers_and_gradients_are_the_published_ones(
    options: dict, peer: type, vgg16: VGGEncoder, pair: Pair
) -> None:
    theirs, ours = peer(**options), LPIPS(vgg16, **options)
    gradients = []
    for run in (lambda x: theirs(x, pair[1], normalize=True), lambda x: ours(x, pair[1])):
        x = pair[0].clone().requires_grad_()
        value = run(x)
        # Unequal weights, so that a picture that gets another's gradient shows.
        (value.flatten(1).mean(1) if value.dim() > 1 else value).backward(torch.tensor([1.0, -2.0]))
        gradients.append((value.detach(), x.grad))
    (expected, expected_gradient), (found, found_gradient) = gradients
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(found, expected.view(found.shape), rtol=1e-5, atol=0)
    assert (found_gradient - expected_gradient).norm() <= 1e-5 * expected_gradient.norm()
    if not options:
        _, layers = theirs(*pair, retPerLayer=True, normalize=True)
        for name, layer in zip(ours.layers, layers, strict=True):
            torch.testing.assert_close(ours.layer_values(*pair)[name], layer.flatten(), rtol=1e-5, atol=0)


def test_without_heads_it_is_the_published_baseline(peer: type, vgg16: VGGEncoder, pair: Pair) -> None:
    expected = peer(lpips=False)(*pair, normalize=True).flatten()
    torch.testing.assert_close(LPIPS(vgg16, heads=None)(*pair), expected, rtol=1e-5, atol=0)


def test_one_layer_is_the_formula_in_double_precision() -> None:
    torch.manual_seed(0)
    x, y, weight = torch.randn(2, 5, 4, 16).relu(), torch.randn(1, 5, 4, 16).relu(), torch.rand(16)
    x[0, 0, 0] = 0
    exact = x.double().requires_grad_()
    u = exact / (exact.square().sum(-1, keepdim=True) + 1e-300).sqrt()
    expected = ((u - unit_length(y).double()).square() * weight.double()).sum(-1)
    expected.sum().backward()
    x.requires_grad_()
    found = weighted_difference(x, unit_length(y), weight)
    found.sum().backward()
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-7)
    assert torch.equal(x.grad[0, 0, 0], torch.zeros(16))
    exact.grad[0, 0, 0] = 0
    torch.testing.assert_close(x.grad, exact.grad.float(), rtol=1e-4, atol=1e-6)


def test_equal_pictures_have_no_distance(small: VGGEncoder, pair: Pair) -> None:
    loss = LPIPS(small, heads=None)
    assert torch.equal(loss(pair[0], pair[0].clone()), torch.zeros(2))
    assert torch.equal(loss(pair[0].clone().requires_grad_(), pair[0]), torch.zeros(2))
    zeros = torch.zeros(1, 2, 2, 8, requires_grad=True)
    unit_length(zeros).sum().backward()
    assert not zeros.grad.any()


def test_gradients_reach_a_target_that_wants_them(small: VGGEncoder, pair: Pair) -> None:
    loss = LPIPS(small, heads=None)
    x, y = (picture.clone().requires_grad_() for picture in pair)
    loss(x, y).sum().backward()
    swapped = pair[1].clone().requires_grad_()
    loss(swapped, pair[0]).sum().backward()
    torch.testing.assert_close(y.grad, swapped.grad, rtol=1e-3, atol=1e-7)
    assert x.grad.norm() > 0


def test_the_published_gradient_is_nan_at_zero_features_and_ours_is_finite(small: VGGEncoder) -> None:
    dead = VGGEncoder("vgg16_bn_x0_25")
    dead.trunk["bn5_3"].bias.data.fill_(-1e6)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    value = LPIPS(dead, heads=None)(x, torch.zeros(1, 3, 32, 32))
    value.sum().backward()
    assert dead.features(x, layers=["relu5_3"])["relu5_3"].max() == 0
    assert value.isfinite().all()
    assert x.grad.isfinite().all()
    maps = torch.zeros(1, 8, 2, 2, requires_grad=True)
    (published.normalize_tensor(maps) - 1).square().sum().backward()
    assert maps.grad.isnan().all()


def test_the_stamp_tells_what_a_value_depends_on(vgg16: VGGEncoder) -> None:
    stamp = LPIPS(vgg16).stamp
    assert (stamp.metric, stamp.version, stamp.net) == ("lpips", "0.1", "vgg16")
    assert len(stamp.weights_digest) == len(stamp.heads_digest) == 64
    assert stamp.as_dict()["input_range"] == "[0, 1]"
    assert stamp == LPIPS(vgg16).stamp
    assert stamp.weights_digest != LPIPS("vgg16", weights=None).stamp.weights_digest
    assert LPIPS(vgg16, heads=None).stamp.metric == "lpips, uncalibrated"


def test_published_heads_are_for_vgg16_alone(small: VGGEncoder) -> None:
    with pytest.raises(OptionError, match="learned on vgg16, not on vgg16_bn_x0_25"):
        LPIPS(small)
    with pytest.raises(OptionError, match=r"version=0\.2"):
        LPIPS(small, heads=None, version="0.2")
    with pytest.raises(WeightsError, match="nowhere"):
        LPIPS("vgg16", weights=None, heads="nowhere.pth")

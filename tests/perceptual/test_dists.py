from __future__ import annotations

import copy

import piq
import pytest
import torch
from DISTS_pytorch.DISTS_pt import DISTS as Published
from torch import Tensor, nn
from torchmetrics.functional.image.dists import DISTSNetwork

from vggtransfer import DISTS, VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.heads import load_dists_weights

Pair = tuple[Tensor, Tensor]


@pytest.fixture
def peers(torchvision_features: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The authors' implementation and torchmetrics', and what piq's needs, on our trunk, with the published weights."""

    class Features:
        def __init__(self) -> None:
            self.features = copy.deepcopy(torchvision_features)  # piq changes what it is given

    monkeypatch.setattr("torchvision.models.vgg16", lambda **_: Features())
    monkeypatch.setattr("torchmetrics.functional.image.dists.vgg16", lambda **_: Features())
    found = [Published(load_weights=False), DISTSNetwork(load_weights=False)]
    weights = load_dists_weights("DISTS_pytorch").weights
    for peer in found:
        peer.alpha.data = torch.cat(weights[:6]).view(1, -1, 1, 1)
        peer.beta.data = torch.cat(weights[6:]).view(1, -1, 1, 1)
    published = {"alpha": found[0].alpha.data, "beta": found[0].beta.data}
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **_options: published)
    monkeypatch.setattr("piq.perceptual.vgg16", lambda **_: Features())
    return found


def test_values_and_gradients_are_the_published_ones(peers: list, vgg16: VGGEncoder, pair: Pair) -> None:
    results = []
    runs = [lambda x, y, peer=peer: peer(x, y, require_grad=True) for peer in peers]
    for run in (DISTS(vgg16), *runs, piq.DISTS(reduction="none")):
        x = pair[0].clone().requires_grad_()
        value = run(x, pair[1])
        value.backward(torch.tensor([1.0, -2.0]))
        results.append((value.detach(), x.grad))
    ours, *theirs = results
    for value, gradient in theirs:
        assert value.min() > 1e-3
        torch.testing.assert_close(ours[0], value, rtol=1e-5, atol=1e-6)
        assert (ours[1] - gradient).norm() <= 1e-4 * gradient.norm()


def test_equal_and_constant_pictures_have_distance_zero_and_finite_gradients(small: VGGEncoder) -> None:
    loss = DISTS(small, heads=None)
    for y in (torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)):
        x = y.clone().requires_grad_()
        value = loss(x, y)
        value.sum().backward()
        assert abs(value.item()) < 1e-6
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() < 1e-3


def test_it_shares_weights_but_not_poolings_and_tells_its_layers(small: VGGEncoder, pair: Pair) -> None:
    loss = DISTS(small, heads=None)
    layers = loss.layer_values(*pair)
    assert list(layers) == ["pictures", "relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    torch.testing.assert_close(sum(layers.values()), loss(*pair))
    assert loss.stamp.metric == "dists, uncalibrated"
    with pytest.raises(OptionError, match="learned on vgg16 and RGB"):
        DISTS(small)

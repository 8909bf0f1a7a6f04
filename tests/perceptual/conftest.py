from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from vggtransfer import VGGEncoder


@pytest.fixture(scope="module")
def torchvision_features() -> nn.Sequential:
    """Torchvision's VGG16 up to its last pooling with He's random weights."""
    torch.manual_seed(0)
    features = make_layers(cfgs["D"], batch_norm=False)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.uniform_(layer.bias, -0.1, 0.1)
    return features.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vgg16(torchvision_features: nn.Sequential) -> VGGEncoder:
    """Our encoder with the same weights."""
    encoder = VGGEncoder("vgg16", weights=None)
    theirs = [layer for layer in torchvision_features if isinstance(layer, nn.Conv2d)]
    ours = [layer for layer in encoder.trunk.values() if isinstance(layer, nn.Conv2d)]
    for one, other in zip(ours, theirs, strict=True):
        one.load_state_dict(other.state_dict())
    return encoder


@pytest.fixture(scope="module")
def small() -> VGGEncoder:
    """The embedded network: trained, with BatchNorm, a quarter as wide."""
    return VGGEncoder("vgg16_bn_x0_25")


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Two pictures that are alike, twice."""
    generator = torch.Generator().manual_seed(1)
    y = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8, generator=generator), size=(48, 40), mode="bicubic")
    noise = torch.randn(y.shape, generator=generator) / 10
    return (y + noise).clamp(0, 1), y.clamp(0, 1)

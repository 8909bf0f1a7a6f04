from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vggtransfer.errors import OptionError
from vggtransfer.segmentation.deeplab import Branch, VGGDeepLab

SMALL = "vgg16_bn_x0_25"


@pytest.mark.parametrize(("head", "rates"), [("largefov", [12]), ("aspp", [6, 12, 18, 24])])
def test_scores_are_the_sum_of_the_branches_at_stride_8(head: str, rates: list[int]) -> None:
    torch.manual_seed(0)
    model = VGGDeepLab(SMALL, classes=3, head=head, weights=None, hidden_channels=8).eval()
    assert model.encoder.strides == (8,)
    assert [branch.conv6.dilation for branch in model.decoder.branches] == [(rate, rate) for rate in rates]
    images = torch.rand(1, 3, 72, 40)
    with torch.no_grad():
        (maps,) = model.encoder(F.pad(images, (12, 4, 12, 4), mode="replicate"))
        scores = sum(branch.score(branch.conv7(branch.conv6(maps).relu()).relu()) for branch in model.decoder.branches)
        expected = F.interpolate(scores, scale_factor=8, mode="bilinear")
        torch.testing.assert_close(model(images), expected[..., :72, :40])
        assert model(torch.rand(2, 3, 33, 50)).shape == (2, 3, 33, 50)


def test_scores_look_at_their_own_place() -> None:
    """Seen through the gradient of scores in the middle, with weights that average."""
    torch.manual_seed(0)
    model = VGGDeepLab(SMALL, classes=1, head="largefov", weights=None, hidden_channels=2).eval()
    for parameter in model.parameters():
        if parameter.dim() == 4:
            nn.init.constant_(parameter, 1 / parameter[0].numel())
    pictures = torch.rand(4, 3, 384, 384, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(pictures)[..., 188:196, 188:196].sum(), pictures)
    weights = gradient.sum(dim=(0, 1)) / gradient.sum()
    place = torch.arange(384.0)
    assert weights.sum(dim=1) @ place == pytest.approx(191.5, abs=4)
    assert weights.sum(dim=0) @ place == pytest.approx(191.5, abs=4)


def test_decimated_layers_see_what_every_third_published_weight_saw() -> None:
    torch.manual_seed(0)
    weight = torch.zeros(8, 2, 7, 7)
    weight[:, :, ::3, ::3] = torch.randn(8, 2, 3, 3)
    published = {
        "fc6.weight": weight.flatten(1),
        "fc6.bias": torch.randn(8),
        "fc7.weight": torch.randn(8, 8),
        "fc7.bias": torch.randn(8),
    }
    branch = Branch(2, classes=1, rate=12, hidden_channels=4, dropout=0.0)
    assert branch.load_classifier(published) == ["fc6", "fc7"]
    maps = torch.randn(1, 2, 30, 30)
    # At stride 8 instead of 32, neighbours of the published layer are 4 steps apart.
    expected = F.conv2d(maps, weight, published["fc6.bias"], padding=12, dilation=4)[:, ::2]
    torch.testing.assert_close(branch.conv6(maps), expected)
    assert torch.equal(branch.conv7.weight.flatten(1), published["fc7.weight"][::2, ::2])
    assert Branch(3, classes=1, rate=12, hidden_channels=4, dropout=0.0).load_classifier(published) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": 2, "head": "fpn"}, "largefov, aspp"),
        ({"classes": 2, "dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        VGGDeepLab(SMALL, weights=None, **arguments)

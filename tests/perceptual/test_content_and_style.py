from __future__ import annotations

import piq
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import total_variation

from vggtransfer import PerceptualLoss, StyleLoss, TotalVariation, VGGEncoder
from vggtransfer.perceptual.style import gram_matrix

Pair = tuple[Tensor, Tensor]


def with_gradient(loss, x: Tensor, *y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x, *y)
    value.backward()
    return value.detach(), x.grad


@pytest.mark.parametrize(("distance", "theirs"), [("l2", "mse"), ("l1", "mae")])
def test_content_is_piqs_divided_by_the_channels(
    distance: str, theirs: str, vgg16: VGGEncoder, torchvision_features: nn.Sequential, pair: Pair
) -> None:
    # piq sums over channels; Johnson et al., equation 2, and we divide by them: 128 at relu2_2, 256 at relu3_3.
    peer = piq.ContentLoss(torchvision_features, layers=["8", "15"], weights=[0.5 / 128, 2.0 / 256], distance=theirs)
    expected, expected_gradient = with_gradient(peer, *pair)
    ours = PerceptualLoss({"relu3_3": 2.0, "relu2_2": 0.5}, distance=distance, net=vgg16)
    found, gradient = with_gradient(ours, *pair)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert (gradient - expected_gradient).norm() <= 1e-4 * expected_gradient.norm()


def test_a_conv_tap_is_before_its_relu_and_piqs_is_after(
    vgg16: VGGEncoder, torchvision_features: nn.Sequential, pair: Pair
) -> None:
    peer = piq.ContentLoss(torchvision_features, layers=["14"], weights=[1.0 / 256])  # conv3_3 in piq's table
    before, after = (PerceptualLoss({name: 1.0}, net=vgg16)(*pair) for name in ("conv3_3", "relu3_3"))
    torch.testing.assert_close(peer(*pair), after, rtol=1e-5, atol=0)
    maps = [vgg16.eval().features(picture, layers=["conv3_3"])["conv3_3"] for picture in pair]
    assert min(each.min() for each in maps) < 0
    torch.testing.assert_close(before, (maps[0] - maps[1]).square().mean(), rtol=1e-4, atol=0)
    assert before > 1.05 * after


def test_style_is_piqs_in_the_units_of_the_paper(
    vgg16: VGGEncoder, torchvision_features: nn.Sequential, pair: Pair
) -> None:
    # piq averages (G - A)^2 with G = F F^T over N^2; Gatys et al., equation 4, divide by 4 N^2 M^2.
    positions = 24 * 20
    peer = piq.StyleLoss(torchvision_features, layers=["6"], weights=[1 / (4 * positions**2)])
    expected, expected_gradient = with_gradient(peer, *pair)
    found, gradient = with_gradient(StyleLoss({"relu2_1": 1.0}, net=vgg16), *pair)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert (gradient - expected_gradient).norm() <= 1e-3 * expected_gradient.norm()


def test_formulas_in_double_precision(vgg16: VGGEncoder, pair: Pair) -> None:
    exact = VGGEncoder("vgg16", weights=None).double().eval()
    exact.load_state_dict(vgg16.state_dict())
    x, y = (exact.features(picture.double(), layers=["relu1_1", "relu3_2"]) for picture in pair)
    charbonnier = ((x["relu3_2"] - y["relu3_2"]) ** 2 + 1e-6).sqrt().mean(dim=(1, 2, 3))
    found = PerceptualLoss({"relu3_2": 1.0}, distance="charbonnier", net=vgg16, reduction="none")(*pair)
    torch.testing.assert_close(found.double(), charbonnier, rtol=1e-5, atol=0)

    style = torch.zeros(2, dtype=torch.float64)
    for name, weight in (("relu1_1", 1.0), ("relu3_2", 0.5)):
        grams = []
        for maps in (x[name], y[name]):
            rows = maps.flatten(2)
            grams.append(rows @ rows.transpose(1, 2))
        channels, positions = rows.shape[1:]
        style += weight * (grams[0] - grams[1]).square().sum(dim=(1, 2)) / (4 * channels**2 * positions**2)
    found = StyleLoss({"relu3_2": 0.5, "relu1_1": 1.0}, net=vgg16, reduction="none")(*pair)
    torch.testing.assert_close(found.double(), style, rtol=1e-4, atol=0)


def test_gram_matrices_of_large_values_do_not_overflow() -> None:
    # 2^10 squared, summed over 64x64 positions, is beyond float16.
    maps = torch.full((1, 4, 64, 64), 1024.0, dtype=torch.float16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        gram = gram_matrix(maps)
    gram.sum().backward()
    assert torch.equal(gram, torch.full((1, 4, 4), 1024.0**2 / 4))
    assert maps.grad.isfinite().all()


def test_style_compares_pictures_of_different_sizes(small: VGGEncoder) -> None:
    tile = torch.rand(1, 3, 32, 32)
    loss = StyleLoss(net=small)
    loss.set_target(tile.repeat(1, 1, 3, 2))
    near = loss(tile.repeat(2, 1, 4, 4))
    far = loss(torch.rand(2, 3, 64, 64) * torch.tensor([1.0, 0.2, 0.1]).view(3, 1, 1))
    assert near < 0.1 * far


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_total_variation(distance: str, pair: Pair) -> None:
    found, gradient = with_gradient(TotalVariation(distance=distance), pair[0])
    if distance == "l1":
        expected, expected_gradient = with_gradient(lambda x: total_variation(x, reduction="mean"), pair[0])
    else:
        expected, expected_gradient = with_gradient(
            lambda x: (x.diff(dim=2) ** 2).sum(dim=(1, 2, 3)).mean() + (x.diff(dim=3) ** 2).sum(dim=(1, 2, 3)).mean(),
            pair[0],
        )
    size = pair[0][0].numel()
    torch.testing.assert_close(found, expected / size)
    torch.testing.assert_close(gradient, expected_gradient / size)
    assert TotalVariation()(torch.full((1, 1, 4, 4), 0.5)) == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile looks at it
def test_style_is_the_same_in_a_compiled_step(small: VGGEncoder, pair: Pair) -> None:
    x = pair[0].clone().requires_grad_()
    loss = StyleLoss(net=small)
    expected = loss(x, pair[1])
    found = torch.compile(loss, backend="eager")(x, pair[1])
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(value, x)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes)

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from DISTS_pytorch.DISTS_pt import L2pooling
from torch import Tensor
from torch.nn import functional as F

from vggtransfer import LPIPS, PerceptualLoss, VGGEncoder
from vggtransfer.errors import OptionError, TrainingError
from vggtransfer.features.winograd import WinogradConvolution
from vggtransfer.perceptual.bits import mask_, pack
from vggtransfer.perceptual.convolution import FrozenConvolution
from vggtransfer.perceptual.steps import AveragePoolStep, MaxPoolStep, RecomputedStep, hanning_pooling
from vggtransfer.perceptual.trunk import LossTrunk


def gradient(maps: dict[str, Tensor], layers: list[str], x: Tensor) -> Tensor:
    total = sum((maps[name] * torch.linspace(-1, 1, maps[name].numel()).view_as(maps[name])).sum() for name in layers)
    return torch.autograd.grad(total, x)[0]


@pytest.mark.parametrize(
    ("arch", "layers", "size"),
    [
        ("vgg16_bn_x0_25", ["conv2_1", "bn3_1", "relu4_3", "pool5"], (61, 70)),
        ("vgg11_lrn", ["relu1_1", "relu2_1"], (21, 16)),
        ("vgg16_1x1", ["relu3_3"], (18, 15)),
    ],
)
def test_maps_and_gradients_are_those_of_autograd(arch: str, layers: list[str], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    encoder = VGGEncoder(arch, weights="default" if arch.endswith("25") else None).eval().requires_grad_(False)
    x = torch.rand(2, 3, *size, requires_grad=True)
    found, expected = LossTrunk(encoder).taps(x, layers), encoder.features(x, layers=layers)
    for name in layers:
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-4, atol=1e-5 * expected[name].abs().max().item()
        )
    one, other = gradient(found, layers, x), gradient(expected, layers, x)
    assert (one - other).norm() <= 1e-5 * other.norm()


def test_it_keeps_bits_where_autograd_keeps_maps(small: VGGEncoder) -> None:
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    sizes = []
    for run in (LossTrunk(small).taps, lambda x, layers: small.eval().requires_grad_(False).features(x, layers=layers)):
        seen: dict[int, int] = {}

        def note(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            run(x, ["relu5_3"])
        sizes.append(sum(seen.values()))
    assert sizes[0] < sizes[1] / 25


@pytest.mark.parametrize("size", [(6, 5), (7, 8)])
def test_poolings_and_their_gradients_are_the_usual_ones(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 3, (2, 8, *size)).float().requires_grad_()  # small numbers: windows with equal values
    for step, usual in (
        (MaxPoolStep(), lambda x: F.max_pool2d(x, 2)),
        (AveragePoolStep(), lambda x: F.avg_pool2d(x, 2)),
        (RecomputedStep(hanning_pooling), L2pooling(channels=8)),
    ):
        expected = usual(x)
        slope = torch.randn_like(expected)
        (expected_back,) = torch.autograd.grad(expected, x, slope)
        found, saved = step.saving(x.detach().permute(0, 2, 3, 1).contiguous())
        torch.testing.assert_close(found.permute(0, 3, 1, 2), expected)
        back = step.backward(slope.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format), saved)
        torch.testing.assert_close(back.permute(0, 3, 1, 2), expected_back)


@pytest.mark.parametrize("count", [1, 8, 13, 2**19 + 9])
def test_bits_are_signs(count: int) -> None:
    values, slopes = torch.randn(count).relu(), torch.randn(count)
    for kind in (torch.float32, torch.bfloat16):
        bits = pack(values.to(kind))
        assert bits.numel() == -(-count // 8)
        assert torch.equal(mask_(slopes.to(kind), bits), slopes.to(kind) * (values > 0))


@pytest.mark.parametrize(("kind", "error"), [(torch.float32, 5e-6), (torch.bfloat16, 1e-2)])
def test_winograds_convolution_is_a_convolution(kind: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(320, 256, 3, 3) / 50, torch.randn(320)
    x = torch.randn(2, 15, 18, 256)
    expected = F.conv2d(x.permute(0, 3, 1, 2).double(), weight.double(), bias.double(), padding=1)
    for relu, result in ((False, expected), (True, expected.relu())):
        found = WinogradConvolution(weight, bias, compute_type=kind, relu=relu)(x.to(kind)).permute(0, 3, 1, 2)
        assert (found - result).norm() <= error * result.norm()
    slope = torch.randn(2, 15, 18, 320)
    back = torch.nn.grad.conv2d_input((2, 256, 15, 18), weight.double(), slope.permute(0, 3, 1, 2).double(), padding=1)
    assert (
        FrozenConvolution(weight, bias, relu=True).backward(slope.to(kind)).permute(0, 3, 1, 2) - back
    ).norm() <= error * back.norm()


def test_second_derivatives_are_refused_where_they_are_asked_for(small: VGGEncoder) -> None:
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    loss = PerceptualLoss(net=small)
    slope = torch.autograd.grad(loss(x, torch.rand(1, 3, 32, 32)), x, create_graph=True)[0]
    with pytest.raises(TrainingError, match="cannot be differentiated again"):
        slope.square().sum().backward()


def test_a_loss_brings_no_weights_into_the_model_that_holds_it(small: VGGEncoder) -> None:
    model = torch.nn.ModuleDict({"loss": LPIPS(small, heads=None)})
    assert list(model.state_dict()) == []
    assert list(model.parameters()) == []
    x, y = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)
    expected = model["loss"](x, y)
    expected.backward()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.double().to("cpu")):
        torch.testing.assert_close(other["loss"](x, y).float(), expected.detach())


def test_what_happens_to_the_encoder_afterwards_does_not_matter(pair: tuple[Tensor, Tensor]) -> None:
    encoder = VGGEncoder("vgg16_bn_x0_25").train()
    loss = PerceptualLoss(net=encoder)
    before = loss(*pair)
    assert encoder.training
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    assert torch.equal(loss(*pair), before)


def test_precisions(small: VGGEncoder, pair: tuple[Tensor, Tensor]) -> None:
    results = {}
    for precision in ("fp32", "mixed", "bf16", "auto"):
        x = pair[0].clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "auto"):
            value = LPIPS(small, heads=None, precision=precision)(x, pair[1]).sum()
        assert value.dtype == torch.float32
        value.backward()
        results[precision] = value.detach(), x.grad.flatten()
    exact, direction = results["fp32"]
    for precision, likeness in (("mixed", 0.998), ("bf16", 0.9), ("auto", 0.9)):
        value, found = results[precision]
        assert abs(value / exact - 1) < 0.01, precision
        assert torch.cosine_similarity(found, direction, dim=0) > likeness, precision
    assert torch.equal(results["auto"][1], results["bf16"][1])


def test_mistakes_are_named(small: VGGEncoder) -> None:
    for options, message in (
        ({"net": small, "weights": None}, "net is an encoder"),
        ({"net": small, "in_channels": 1}, "an encoder for 3 channels"),
        ({"net": small, "pooling": "min"}, "pooling=min"),
        ({"net": small, "precision": "fp8"}, "precision=fp8"),
        ({"net": VGGEncoder("vgg11", weights=None, output_stride=16)}, "output_stride=16"),
        ({"net": small, "layers": {"relu9_9": 1.0}}, "relu9_9"),
        ({"net": small, "layers": {"relu1_1": -1.0}}, "weight of relu1_1 is -1.0"),
        ({"net": small, "distance": "l3"}, "distance=l3"),
        ({"net": small, "reduction": "max"}, "reduction=max"),
    ):
        with pytest.raises(OptionError, match=message):
            PerceptualLoss(**options)

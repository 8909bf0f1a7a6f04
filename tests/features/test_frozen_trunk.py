from __future__ import annotations

import copy

import pytest
import torch

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import InputError, OptionError
from vggtransfer.features.frozen_trunk import FrozenTrunk, folded_steps

CPU = torch.device("cpu")


def lively(arch: str) -> VGGEncoder:
    """An encoder whose BatchNorm does something."""
    generator = torch.Generator().manual_seed(0)
    encoder = VGGEncoder(arch, weights=None)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) / 5)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    for name, parameter in encoder.named_parameters():
        if ".bn" in name and name.endswith("weight"):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))  # negative ones as well
    return encoder.eval()


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 40, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("vgg11", ["pool5"]),
        ("vgg11", ["conv3_1", "relu3_1", "pool2"]),
        ("vgg16_bn_x0_25", ["relu4_3", "pool5"]),
        ("vgg16_bn_x0_25", ["bn2_2", "conv5_1", "relu1_1"]),
        ("vgg11_lrn", ["relu1_1", "pool4"]),
        ("vgg16_1x1", ["pool5"]),
    ],
)
def test_taps_equal_the_encoders(arch: str, layers: list[str], pictures: torch.Tensor) -> None:
    encoder = lively(arch)
    with torch.inference_mode():
        expected = encoder.features(pictures / 255, layers=layers)
    taps = FrozenTrunk(encoder, layers, device=CPU, compute_type=torch.float32)(pictures)
    assert list(taps) == layers
    for name in layers:
        scale = expected[name].abs().max()
        assert scale > 0
        torch.testing.assert_close(taps[name], expected[name], rtol=1e-5, atol=1e-5 * scale.item())


def test_taps_in_bfloat16_are_those_of_autocast_but_for_rounding(pictures: torch.Tensor) -> None:
    encoder = lively("vgg16_bn_x0_25")
    with torch.inference_mode():
        expected = encoder.features(pictures / 255, layers=["pool5"])["pool5"]
    found = FrozenTrunk(encoder, ["pool5"], device=CPU, compute_type=torch.bfloat16)(pictures)["pool5"]
    assert found.dtype == torch.bfloat16
    similarity = torch.cosine_similarity(found.float().flatten(1), expected.flatten(1))
    assert similarity.min() > 0.999


@pytest.mark.parametrize("compute_type", [torch.float32, torch.bfloat16])
def test_a_relu_within_the_convolution_changes_no_number(
    compute_type: torch.dtype, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = lively("vgg16_bn_x0_25")
    trunk = FrozenTrunk(encoder, ["conv2_1", "pool5"], device=CPU, compute_type=compute_type)
    found = trunk(pictures)
    # What has been packed for pictures of one size serves others, and stays out of copies.
    others = pictures[:1, :, :32].contiguous()
    found_of_others, found_by_a_copy = trunk(others), copy.deepcopy(trunk)(others)
    monkeypatch.setattr("vggtransfer.features.onednn.takes", lambda _: False)
    for name in trunk.layers:
        torch.testing.assert_close(found[name], trunk(pictures)[name])
        torch.testing.assert_close(found_of_others[name], trunk(others)[name])
        torch.testing.assert_close(found_by_a_copy[name], found_of_others[name])


@pytest.mark.parametrize(("compute_type", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_convolutions_that_save_multiplications_answer_alike(
    compute_type: torch.dtype, error: float, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = lively("vgg16_bn_x0_25")
    layers = ["conv2_2", "bn3_1", "relu3_3"]
    with torch.inference_mode():
        expected = encoder.features(pictures / 255, layers=layers)
    monkeypatch.setattr("vggtransfer.features.frozen_trunk.saves_time", lambda weight, _: weight.shape[1] > 3)
    trunk = FrozenTrunk(encoder, layers, device=CPU, compute_type=compute_type)
    found = trunk(pictures)
    found_by_a_copy = copy.deepcopy(trunk)(pictures)
    for name in layers:
        assert found[name].dtype == compute_type
        assert (found[name].float() - expected[name]).norm() <= error * expected[name].norm()
        assert torch.equal(found_by_a_copy[name], found[name])


@pytest.mark.parametrize("compute_type", [torch.float32, torch.bfloat16])
def test_no_pictures_numbers_depend_on_those_beside_it(compute_type: torch.dtype) -> None:
    trunk = FrozenTrunk(VGGEncoder("vgg11", weights=None), ["relu5_2"], device=CPU, compute_type=compute_type)
    pictures = torch.randint(0, 256, (5, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = trunk(pictures)["relu5_2"]
    for picture, found in zip(pictures.split(1), together.split(1), strict=True):
        assert torch.equal(trunk(picture)["relu5_2"], found)


def test_floats_are_taken_for_pictures_in_the_unit_range(pictures: torch.Tensor) -> None:
    trunk = FrozenTrunk(lively("vgg11"), ["pool2"], device=CPU, compute_type=torch.float32)
    torch.testing.assert_close(trunk(pictures)["pool2"], trunk(pictures / 255)["pool2"])


def test_pictures_that_are_normalised_already_stay_as_they_are(pictures: torch.Tensor) -> None:
    encoder = VGGEncoder("vgg11", weights=None, normalize=False).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected = encoder.features(images, layers=["relu1_1"])["relu1_1"]
    found = FrozenTrunk(encoder, ["relu1_1"], device=CPU, compute_type=torch.float32)(images)["relu1_1"]
    torch.testing.assert_close(found, expected)


def test_the_encoder_stays_as_it_is_and_may_change_afterwards(pictures: torch.Tensor) -> None:
    encoder = lively("vgg16_bn_x0_25")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    trunk = FrozenTrunk(encoder, ["conv1_1", "bn5_3"], device=CPU, compute_type=torch.bfloat16)
    first = trunk(pictures)["bn5_3"]
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.dtype == before[name].dtype
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.zero_()
    assert torch.equal(trunk(pictures)["bn5_3"], first)


def test_batch_norm_and_relu_are_joined_with_the_convolution_unless_a_tap_lies_between() -> None:
    encoder = VGGEncoder("vgg11_bn", weights=None)
    assert [name for name, _ in folded_steps(encoder, ["pool2"])] == ["relu1_1", "pool1", "relu2_1", "pool2"]
    assert [name for name, _ in folded_steps(encoder, ["conv1_1", "bn2_1"])] == [
        "conv1_1",
        "bn1_1",
        "relu1_1",
        "pool1",
        "bn2_1",
    ]


def test_mistakes_are_named() -> None:
    encoder = VGGEncoder("vgg11", weights=None)
    with pytest.raises(OptionError, match="pool6"):
        FrozenTrunk(encoder, ["pool6"], device=CPU, compute_type=torch.float32)
    trunk = FrozenTrunk(encoder, ["pool5"], device=CPU, compute_type=torch.float32)
    with pytest.raises(InputError, match="minimum is 32x32"):
        trunk(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(InputError, match="expected 3 channels"):
        trunk(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))

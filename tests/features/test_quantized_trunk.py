from __future__ import annotations

import pytest
import torch

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import InputError, OptionError
from vggtransfer.features import quantized_trunk
from vggtransfer.features.frozen_trunk import FrozenTrunk
from vggtransfer.features.quantized_trunk import QuantizedTrunk

CPU = torch.device("cpu")
needs_vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this CPU has no VNNI")


def pictures(count: int, seed: int, side: int = 64) -> torch.Tensor:
    """Blurred noise: as in photographs, neighbouring pixels are alike."""
    noise = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(noise, size=(side, side), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def cosines(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return torch.cosine_similarity(found.mean(dim=(2, 3)), expected.mean(dim=(2, 3)))


@needs_vnni
def test_pooled_features_are_those_of_float32_to_a_thousandth() -> None:
    encoder = VGGEncoder("vgg16_bn_x0_25", weights="embedded").eval()
    layers = ["relu2_2", "conv4_2", "relu4_3", "pool5"]
    trunk = QuantizedTrunk(encoder, layers, [pictures(8, 0), pictures(8, 1)])
    found, expected = (
        trunk(pictures(8, 2)),
        FrozenTrunk(encoder, layers, device=CPU, compute_type=torch.float32)(pictures(8, 2)),
    )
    assert list(found) == layers
    for name in layers:
        assert found[name].dtype == torch.float32
        assert found[name].shape == expected[name].shape
        assert cosines(found[name], expected[name]).min() > 0.999, name
        assert not torch.equal(found[name], expected[name])  # integers were at work


@needs_vnni
@pytest.mark.parametrize("arch", ["vgg11", "vgg11_lrn", "vgg16_1x1", "vgg11_bn"])
def test_all_architectures_and_odd_sizes(arch: str) -> None:
    encoder = VGGEncoder(arch, weights=None).eval()
    trunk = QuantizedTrunk(encoder, ["pool4"], [pictures(4, 0)])
    odd = pictures(2, 3, side=72)[..., :67]
    expected = FrozenTrunk(encoder, ["pool4"], device=CPU, compute_type=torch.float32)(odd)["pool4"]
    found = trunk(odd)["pool4"]
    assert found.shape == expected.shape
    assert cosines(found, expected).min() > 0.998


@needs_vnni
def test_floats_are_rounded_to_pixels_and_batches_change_nothing() -> None:
    encoder = VGGEncoder("vgg16_bn_x0_25", weights="embedded").eval()
    trunk = QuantizedTrunk(encoder, ["pool5"], [pictures(4, 0)])
    batch = pictures(5, 1)
    together = trunk(batch)["pool5"]
    assert torch.equal(trunk(batch / 255)["pool5"], together)
    assert torch.equal(torch.cat([trunk(picture[None])["pool5"] for picture in batch]), together)


@needs_vnni
def test_an_encoder_without_normalisation_takes_any_floats() -> None:
    encoder = VGGEncoder("vgg11", weights=None, normalize=False).eval()
    images = [torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    trunk = QuantizedTrunk(encoder, ["pool3"], [images[0]])
    expected = FrozenTrunk(encoder, ["pool3"], device=CPU, compute_type=torch.float32)(images[1])["pool3"]
    assert cosines(trunk(images[1])["pool3"], expected).min() > 0.995


@needs_vnni
def test_the_encoder_stays_as_it_is() -> None:
    encoder = VGGEncoder("vgg11_bn", weights=None).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    QuantizedTrunk(encoder, ["pool3"], [pictures(2, 0)])(pictures(1, 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@needs_vnni
def test_mistakes_are_named() -> None:
    encoder = VGGEncoder("vgg11", weights=None)
    with pytest.raises(OptionError, match="at least one picture to be calibrated on"):
        QuantizedTrunk(encoder, ["pool3"], [])
    with pytest.raises(InputError, match="minimum is 8x8"):
        QuantizedTrunk(encoder, ["pool3"], [pictures(2, 0)])(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


def test_machines_without_the_instructions_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(OptionError, match="int8 needs an x86 CPU with VNNI"):
        quantized_trunk.check_machine()

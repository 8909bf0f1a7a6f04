from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggtransfer.encoder.trunk_files import FileHeader, weights_digest, write_weights
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import BadImageError, InputError, OptionError, WeightsError
from vggtransfer.features.encoder_choice import load_encoder
from vggtransfer.features.pooling import pool_maps
from vggtransfer.retrieval.embedder import Embedder
from vggtransfer.retrieval.whitening import pca_whitening

SMALL = {"image_size": 32, "precision": "fp32", "device": "cpu"}


@pytest.fixture(scope="module")
def plain() -> Embedder:
    return Embedder("vgg16_bn_x0_25", weights="embedded", layer="pool3", pool="gem", **SMALL)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_vectors_are_pooled_maps_of_the_encoder_scaled_to_length_one(plain: Embedder, pictures: torch.Tensor) -> None:
    maps = load_encoder("vgg16_bn_x0_25", "embedded").features(pictures / 255, layers=["pool3"])["pool3"]
    expected = unit(pool_maps(maps, "gem"))
    for given in (pictures, pictures / 255):
        found = plain.embed(given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert plain.dimension == 64


def test_layers_are_joined_and_scales_averaged(pictures: torch.Tensor) -> None:
    encoder = load_encoder("vgg16_bn_x0_25", "embedded")
    embedder = Embedder("vgg16_bn_x0_25", layer="pool3,pool2", pool="max", scales=(1, 0.5), **SMALL)

    def of_scale(images: torch.Tensor) -> torch.Tensor:
        maps = encoder.features(images, layers=["pool3", "pool2"])
        return unit(torch.cat([unit(maps[name].amax(dim=(2, 3))) for name in ("pool3", "pool2")], dim=1))

    halved = torch.nn.functional.interpolate(pictures / 255, (16, 16), mode="bilinear", antialias=True)
    expected = unit(of_scale(pictures / 255) + of_scale(halved))
    np.testing.assert_allclose(embedder.embed(pictures), expected, atol=1e-5)
    assert embedder.dimension == 96


def test_files_come_in_order_each_with_its_vector_or_the_reason_it_has_none(
    plain: Embedder, pictures: torch.Tensor, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    paths[2].write_bytes(b"no picture")
    small_batches = Embedder("vgg16_bn_x0_25", weights="embedded", layer="pool3", pool="gem", batch_size=2, **SMALL)
    rows = list(small_batches.embed_files(paths))
    assert [path for path, _ in rows] == paths
    assert isinstance(rows[2][1], BadImageError)
    assert str(paths[2]) in str(rows[2][1])
    good = [0, 1, 3, 4]
    np.testing.assert_allclose(np.stack([rows[number][1] for number in good]), plain.embed(pictures)[good], atol=1e-5)
    np.testing.assert_allclose(
        plain.embed_pictures([paths[0], Image.open(paths[1])]), plain.embed(pictures)[:2], atol=1e-5
    )
    assert list(plain.embed_files([])) == []


def test_int8_is_calibrated_on_what_it_is_given_and_stays_near(plain: Embedder, pictures: torch.Tensor) -> None:
    if not torch.cpu._is_vnni_supported():
        pytest.skip("this CPU has no VNNI")
    options = {**SMALL, "precision": "int8"}
    rough = Embedder("vgg16_bn_x0_25", weights="embedded", layer="pool3", pool="gem", **options)
    cosines = (rough.embed(pictures) * plain.embed(pictures)).sum(axis=1)
    assert cosines.min() > 0.99
    assert rough.digest == plain.digest


def test_digest_tells_what_vectors_depend_on(plain: Embedder, pictures: torch.Tensor) -> None:
    whitened = plain.with_whitening(pca_whitening(plain.embed(pictures), dimension=3))
    np.testing.assert_allclose(np.linalg.norm(whitened.embed(pictures), axis=1), 1, atol=1e-5)
    assert (whitened.dimension, plain.dimension) == (3, 64)
    others = [
        Embedder("vgg16_bn_x0_25", **{"layer": "pool3", "pool": "gem", **SMALL, **change})
        for change in (
            {"pool": "max"},
            {"layer": "pool2"},
            {"image_size": 48},
            {"scales": (1, 0.5)},
            {"weights": "none"},
        )
    ]
    digests = {embedder.digest for embedder in (plain, whitened, *others)}
    assert len(digests) == 7
    same = Embedder("vgg16_bn_x0_25", layer="pool3", pool="gem", image_size=32, precision="bf16", batch_size=7)
    assert same.digest == plain.digest


def test_fc_layers_of_a_classifier(pictures: torch.Tensor, tmp_path: Path) -> None:
    encoder = VGGEncoder("vgg11", weights=None)
    classifier = torch.nn.Sequential(torch.nn.Linear(512 * 49, 4096), torch.nn.ReLU(), torch.nn.Linear(4096, 4096))
    state = {f"features.{key}": value for key, value in _torchvision_keys(encoder).items()}
    for name, position in (("0", 0), ("3", 2)):
        for kind in ("weight", "bias"):
            state[f"classifier.{name}.{kind}"] = getattr(classifier[position], kind).detach()
    state["classifier.6.weight"], state["classifier.6.bias"] = torch.zeros(10, 4096), torch.zeros(10)
    torch.save(state, tmp_path / "vgg11.pth")
    with torch.inference_mode():
        maps = encoder.eval()(pictures / 255)[-1]
        flat = torch.nn.functional.adaptive_avg_pool2d(maps, 7).flatten(1)
        for layer, expected in (("fc6", classifier[0](flat)), ("fc7", classifier(flat))):
            embedder = Embedder("vgg11", weights=str(tmp_path / "vgg11.pth"), layer=layer, **SMALL)
            np.testing.assert_allclose(embedder.embed(pictures), unit(expected), atol=1e-5)
            assert embedder.dimension == 4096
    with pytest.raises(WeightsError, match="take another layer"):
        Embedder("vgg11", weights="none", layer="fc7", **SMALL)


def _torchvision_keys(encoder: VGGEncoder) -> dict[str, torch.Tensor]:
    names = list(encoder.trunk)
    return {f"{names.index(key.split('.')[0])}.{key.split('.')[1]}": t for key, t in encoder.trunk.state_dict().items()}


def test_model_brings_its_encoder_picture_size_and_exponent(tmp_path: Path, pictures: torch.Tensor) -> None:
    encoder = VGGEncoder("vgg16_bn_x0_25", weights="embedded")
    tensors = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    tensors["head.pool.exponent"] = torch.tensor(4.5)
    header = FileHeader(
        "classifier",
        "vgg16_bn_x0_25",
        tuple(encoder.mean.flatten().tolist()),
        tuple(encoder.std.flatten().tolist()),
        "test",
        weights_digest({k: v for k, v in encoder.trunk.state_dict().items() if not k.endswith("_tracked")}),
        {"task": {"image_size": 64, "crop_fraction": 1.0}},
    )
    write_weights(tmp_path / "model.safetensors", tensors, header)
    embedder = Embedder(model=tmp_path, precision="fp32", device="cpu")
    assert (embedder.image_size, embedder.description["layer"], embedder.description["pool"]) == (64, "pool5", "gem")
    assert embedder.description["gem_exponent"] == 4.5
    maps = encoder.eval()(pictures / 255)[-1].detach()
    np.testing.assert_allclose(embedder.embed(pictures), unit(pool_maps(maps, "gem", exponent=4.5)), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": "none"}, "pool=none is not possible: use gap, max"),
        ({"layer": "fc6", "pool": "gem"}, "vector already"),
        ({"layer": "relu9_9"}, "has no layer 'relu9_9'"),
        ({"scales": ()}, "scales="),
        ({"scales": (1, 0.1)}, "image_size=3"),
        ({"crop_fraction": 1.5}, "crop_fraction=1.5"),
        ({"model": Path("somewhere")}, "model=somewhere brings its own encoder"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_arguments_that_cannot_be_used(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Embedder("vgg16_bn_x0_25", **{**SMALL, **change})


def test_wrong_pictures_and_whitenings_are_refused(plain: Embedder, pictures: torch.Tensor) -> None:
    with pytest.raises(InputError, match="divide by 255"):
        plain.embed(pictures.float())
    with pytest.raises(OptionError, match="whitening is for vectors of 7 numbers"):
        plain.with_whitening(pca_whitening(np.eye(7, dtype=np.float32)))

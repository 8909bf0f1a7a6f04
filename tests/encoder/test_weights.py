"""Real, small checkpoints: `vgg16_bn_x0_25` has torchvision's, timm's and smp's layers at a quarter of the width."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vggtransfer.encoder import weight_sources
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES
from vggtransfer.encoder.preprocessing import _CAFFE_VGG19, CAFFE_BGR, TORCHVISION
from vggtransfer.encoder.trunk_files import FileHeader, weights_digest, write_weights
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.encoder.weight_files import read_weights, save_weights
from vggtransfer.encoder.weight_sources import classifier_path, find_source, sources_of
from vggtransfer.encoder.weights import load_weights
from vggtransfer.errors import OptionError, WeightsError

SMALL = "vgg16_bn_x0_25"
WIDTHS = (16, 16, "M", 32, 32, "M", 64, 64, 64, "M", 128, 128, 128, "M", 128, 128, 128, "M")
MEAN, STD = torch.tensor(TORCHVISION.mean).view(3, 1, 1), torch.tensor(TORCHVISION.std).view(3, 1, 1)


class OnlyFeatures(nn.Module):
    """A network whose trunk is called `features`, as everybody's is."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features


def shaken(module: nn.Module) -> nn.Module:
    """Gives every tensor values of its own, BatchNorm's statistics included."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(-0.08, 0.1, generator=generator)
        if name.endswith("running_var"):
            tensor.add_(1)
    return module.eval()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    from torchvision.models.vgg import make_layers

    return shaken(OnlyFeatures(make_layers(list(WIDTHS), batch_norm=True)))


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """vgg11's trunk without BatchNorm, at full width (37 MB)."""
    from torchvision.models.vgg import cfgs, make_layers

    return shaken(OnlyFeatures(make_layers(cfgs["A"])))


def paper_names(features: Any) -> dict[str, Tensor]:
    """Counted independently of the package."""
    block, index = 1, 0
    expected: dict[str, Tensor] = {}
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            block, index = block + 1, 0
            continue
        index += isinstance(module, nn.Conv2d)
        layer = f"{'conv' if isinstance(module, nn.Conv2d) else 'bn'}{block}_{index}"
        expected |= {f"{layer}.{name}": value for name, value in module.state_dict().items()}
    return {key: value for key, value in expected.items() if "num_batches" not in key}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


def same_taps(encoder: VGGEncoder, features: Any, pictures: Tensor, prepared: Tensor) -> None:
    """Compares all activations with those of the torch module that the file was saved from."""
    names = [layer.name for layer in encoder.architecture.layers if layer.kind != "lrn"]
    with torch.no_grad():
        taps = encoder.eval().features(pictures, layers=names)
        for name, module in zip(names, features, strict=True):
            # Not in place: the value before it is compared too.
            prepared = prepared.relu() if isinstance(module, nn.ReLU) else module(prepared)
            torch.testing.assert_close(taps[name], prepared, rtol=1e-4, atol=1e-5 * float(prepared.abs().max()))


# What is written, in all the ways people write it.


def as_torchvision(model: Any, path: Path) -> None:
    torch.save(model.state_dict(), path)


def as_old_torch(model: Any, path: Path) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def as_training_checkpoint(model: Any, path: Path) -> None:
    state = {f"module._orig_mod.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "best": torch.tensor(0.5), "optimizer": {"state": {}}}, path)


def as_safetensors(model: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.state_dict(), path, metadata={"format": "pt"})


def as_timm(model: Any, path: Path) -> None:
    import timm.models.vgg

    theirs = timm.models.vgg.VGG(list(WIDTHS), num_classes=2, norm_layer=nn.BatchNorm2d, mlp_ratio=0.01)
    theirs.features.load_state_dict(model.features.state_dict())
    torch.save({"model": theirs.state_dict()}, path)


def as_smp(model: Any, path: Path) -> None:
    from segmentation_models_pytorch.encoders.vgg import VGGEncoder as SmpEncoder

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = SmpEncoder([16, 32, 64, 128, 128, 128], list(WIDTHS), batch_norm=True)
            self.decoder = nn.Conv2d(128, 1, 1)

    net = Net()
    net.encoder.features.load_state_dict(model.features.state_dict())
    torch.save(net.state_dict(), path)


def as_lightning(model: Any, path: Path) -> None:
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5.0", "loops": {}, "hyper_parameters": {}}, path)


@pytest.mark.parametrize(
    "save", [as_torchvision, as_old_torch, as_training_checkpoint, as_safetensors, as_timm, as_smp, as_lightning]
)
def test_file_to_encoder_is_exact(small: Any, tmp_path: Path, save: Any) -> None:
    path = tmp_path / "file"
    save(small, path)
    loaded = load_weights(SMALL, path)
    assert_same(loaded.trunk, paper_names(small.features))
    assert loaded.classifier == {}
    assert (loaded.mean, loaded.std) == (TORCHVISION.mean, TORCHVISION.std)
    assert str(path) in loaded.origin
    assert loaded.digest == weights_digest(paper_names(small.features))


def test_encoder_computes_what_the_torch_module_computes(small: Any, plain: Any, tmp_path: Path) -> None:
    pictures = torch.rand(2, 3, 32, 32)
    for arch, model in ((SMALL, small), ("vgg11", plain)):
        torch.save(model.state_dict(), tmp_path / f"{arch}.pth")
        encoder = VGGEncoder(arch, weights=tmp_path / f"{arch}.pth")
        same_taps(encoder, model.features, pictures, (pictures - MEAN) / STD)


def test_caffe_port_gets_bgr_pictures_in_0_255(plain: Any, tmp_path: Path) -> None:
    """A jcjohnson file cannot be told from torchvision's by its keys, only by its filters or its name."""
    pictures = torch.rand(2, 3, 32, 32)
    prepared = pictures.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    state = {key: value.clone() for key, value in plain.state_dict().items()}

    torch.save(state, tmp_path / "vgg16-00b39a1b.pth")
    encoder = VGGEncoder("vgg11", weights=tmp_path / "vgg16-00b39a1b.pth")
    same_taps(encoder, plain.features, pictures, prepared)

    state["features.0.weight"][0] = torch.tensor(_CAFFE_VGG19[:-1]).view(3, 3, 3)
    state["features.0.bias"][0] = _CAFFE_VGG19[-1]
    torch.save(state, tmp_path / "backbone.pth")
    loaded = load_weights("vgg11", tmp_path / "backbone.pth")
    assert torch.equal(loaded.trunk["conv1_1.weight"], state["features.0.weight"].flip(1))
    assert (loaded.mean, loaded.std) == (CAFFE_BGR.mean, CAFFE_BGR.std)
    assert "Caffe: BGR" in loaded.origin

    # MatConvNet's and TensorFlow Slim's copies have RGB filters.
    state["features.0.weight"] = state["features.0.weight"].flip(1)
    torch.save(state, tmp_path / "backbone.pth")
    turned = load_weights("vgg11", tmp_path / "backbone.pth")
    assert torch.equal(turned.trunk["conv1_1.weight"], state["features.0.weight"])
    assert turned.digest == loaded.digest
    assert turned.std == CAFFE_BGR.std


def test_preprocessing_that_cannot_be_told_is_asked_for(plain: Any, tmp_path: Path) -> None:
    torch.save(paper_names(plain.features), tmp_path / "vgg_conv.pth")
    with pytest.raises(
        WeightsError, match=r"cannot tell .*convert .*vgg_conv\.pth --out .*--preprocessing torchvision"
    ):
        load_weights("vgg11", tmp_path / "vgg_conv.pth")

    old = plain.state_dict() | {f"classifier.{at}.weight": torch.zeros(1, 1) for at in (1, 4, 6)}
    torch.save(old, tmp_path / "old.pth")
    with pytest.raises(WeightsError, match="cannot tell whether"):
        load_weights("vgg11", tmp_path / "old.pth")

    weight = plain.features[0].weight
    for options, flipped, std in (
        ({"layout": "caffe"}, True, 1 / 255),
        ({"preprocessing": "caffe"}, True, 1 / 255),
        ({"preprocessing": "torchvision"}, False, 0.229),
        ({"preprocessing": "none"}, False, 1.0),
    ):
        read = read_weights(tmp_path / "vgg_conv.pth", "vgg11", **options)
        assert torch.equal(read.trunk["conv1_1.weight"], weight.flip(1) if flipped else weight)
        assert read.std[0] == std


def test_contradiction_to_the_filters_is_said(plain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    state["features.0.weight"][0] = torch.tensor(_CAFFE_VGG19[:-1]).view(3, 3, 3)
    state["features.0.bias"][0] = _CAFFE_VGG19[-1]
    torch.save(state, tmp_path / "file.pth")
    assert read_weights(tmp_path / "file.pth", "vgg11", preprocessing="torchvision").mean == TORCHVISION.mean
    assert "those of the Caffe networks" in capsys.readouterr().err


# Keras, written as its three generations did.


def keras_layout(features: Any, how: str) -> dict[str, Tensor]:
    names = {"1": ("{0}_W_1:0", "{0}_b_1:0"), "2": ("{0}/kernel:0", "{0}/bias:0"), "3": ("{0}/kernel", "{0}/bias")}
    tensors: dict[str, Tensor] = {}
    for key, value in paper_names(features).items():
        place, kind = key.split(".")
        layer = f"block{place[4]}_conv{place[6]}"
        name = names[how][kind == "bias"].format(layer)
        tensors[f"{layer}/{name}"] = value.permute(2, 3, 1, 0) if kind == "weight" else value
    return tensors


@pytest.mark.parametrize("how", ["1", "2", "3", "model", "weights.h5", "keras"])
def test_keras_files(plain: Any, tmp_path: Path, how: str) -> None:
    import h5py

    path = tmp_path / "vgg.h5"
    with h5py.File(path, "w") as file:
        if how in ("1", "2", "3"):
            tensors = keras_layout(plain.features, how)
            layers = list(dict.fromkeys(key.split("/")[0] for key in tensors))
            file.attrs["layer_names"] = [layer.encode() for layer in ("input_1", *layers, "block1_pool")]
            for empty in ("input_1", "block1_pool"):
                file.create_group(empty).attrs["weight_names"] = []
            for layer in layers:
                own = {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{layer}/")}
                group = file.create_group(layer)
                group.attrs["weight_names"] = [name.encode() for name in own]
                for name, value in own.items():
                    group.create_dataset(name, data=value.numpy())
        elif how == "model":
            # A whole model in the old format: VGG as a layer of another model, and the optimizer's moments.
            for key, value in keras_layout(plain.features, "2").items():
                file.create_dataset(f"model_weights/vgg16/{key.split('/', 1)[1]}", data=value.numpy())
                file.create_dataset(f"optimizer_weights/adam/m/{key.split('/', 1)[1]}", data=value.numpy() * 0)
            file.create_dataset("model_weights/dense/dense/kernel:0", data=torch.zeros(3, 3).numpy())
        else:
            for number, (key, value) in enumerate(keras_layout(plain.features, "3").items()):
                layer = key.split("/")[0]
                folder = f"layers/functional/layers/conv2d_{number // 2}/vars"
                file.create_dataset(f"{folder}/{number % 2}", data=value.numpy())
                file[folder].attrs["name"] = layer
                file.create_dataset(f"optimizer/vars/{number}", data=value.numpy() * 0)
    if how == "keras":
        with zipfile.ZipFile(tmp_path / "vgg.keras", "w") as archive:
            archive.writestr("config.json", "{}")
            archive.write(path, "model.weights.h5")
        path = tmp_path / "vgg.keras"
    loaded = load_weights("vgg11", path)
    expected = paper_names(plain.features)
    expected["conv1_1.weight"] = expected["conv1_1.weight"].flip(1)
    assert_same(loaded.trunk, expected)
    assert (loaded.mean, loaded.std) == (CAFFE_BGR.mean, CAFFE_BGR.std)


KERAS_SCRIPT = """
import sys
import keras
import numpy as np

keras.utils.set_random_seed(0)
model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
for weight in model.weights:
    if weight.name == "bias":
        weight.assign(np.random.uniform(-0.1, 0.1, weight.shape))
model.save_weights(sys.argv[1] + "/vgg16.weights.h5")
pictures = np.random.rand(2, 32, 32, 3).astype("float32")
prepared = keras.applications.vgg16.preprocess_input(pictures * 255)
taps = ["block1_conv1", "block3_conv3", "block5_conv3", "block5_pool"]
outputs = keras.Model(model.input, [model.get_layer(name).output for name in taps])(prepared)

# The classifier's flatten order at full size needs no trunk.
pooled = keras.Input((7, 7, 512))
flat = keras.layers.Dense(3, name="fc1", bias_initializer="uniform")(keras.layers.Flatten()(pooled))
top = keras.Model(pooled, flat)
top.save_weights(sys.argv[1] + "/top.weights.h5")
maps = np.random.rand(2, 7, 7, 512).astype("float32")

arrays = [keras.ops.convert_to_numpy(output) for output in (*outputs, top(maps))]
np.savez(sys.argv[1] + "/outputs.npz", pictures, *arrays[:-1], maps, arrays[-1])
"""


def test_keras_itself_computes_the_same(tmp_path: Path) -> None:
    import os

    import numpy as np

    from vggtransfer.encoder.checkpoint_files import read_checkpoint
    from vggtransfer.encoder.key_layouts import recognise_keys

    command = [sys.executable, "-W", "ignore", "-c", KERAS_SCRIPT, str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"})
    arrays = [torch.from_numpy(array) for array in np.load(tmp_path / "outputs.npz").values()]
    pictures, *taps, maps, flat = arrays

    encoder = VGGEncoder("vgg16", weights=tmp_path / "vgg16.weights.h5").eval()
    # Keras has each convolution with its ReLU in one layer.
    names = ["relu1_1", "relu3_3", "relu5_3", "pool5"]
    with torch.no_grad():
        found = encoder.features(pictures.permute(0, 3, 1, 2), layers=names)
    for name, tap in zip(names, taps, strict=True):
        expected = tap.permute(0, 3, 1, 2)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5 * float(expected.max()))

    tensors = read_checkpoint(tmp_path / "top.weights.h5").tensors
    fc6 = recognise_keys(tensors, source="top").classifier
    ours = nn.functional.linear(maps.permute(0, 3, 1, 2).flatten(1), fc6["fc6.weight"], fc6["fc6.bias"])
    torch.testing.assert_close(ours, flat, rtol=1e-4, atol=1e-4)


# Files of our own.


def classifier_tensors() -> dict[str, Tensor]:
    """Of the right shape, without the memory of 124 million numbers until they are written."""
    shapes = {"fc6": (4096, 25088), "fc7": (4096, 4096), "fc8": (1000, 4096)}
    tensors: dict[str, Tensor] = {}
    for number, (layer, shape) in enumerate(shapes.items()):
        tensors |= {f"{layer}.weight": torch.tensor(float(number)).expand(shape), f"{layer}.bias": torch.ones(shape[0])}
    return tensors


def test_own_file_round_trip(small: Any, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "small.pth")
    loaded = load_weights(SMALL, tmp_path / "small.pth")
    save_weights(tmp_path / "own.safetensors", loaded)
    again = load_weights(SMALL, str(tmp_path / "own.safetensors"))
    assert_same(again.trunk, loaded.trunk)
    assert (again.mean, again.std, again.digest) == (loaded.mean, loaded.std, loaded.digest)
    assert again.origin == loaded.origin

    from safetensors import safe_open

    with safe_open(tmp_path / "own.safetensors", "pt") as file:
        header = json.loads(file.metadata()["vggtransfer"])
    assert header["format"] == 1
    assert header["kind"] == "trunk"
    assert header["architecture"] == SMALL
    assert header["digest"] == loaded.digest


def test_own_file_knows_its_architecture_and_its_damage(small: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    torch.save(small.state_dict(), tmp_path / "small.pth")
    save_weights(path, load_weights(SMALL, tmp_path / "small.pth"))
    with pytest.raises(WeightsError, match=f"holds {SMALL}, not vgg16; use arch='{SMALL}'"):
        load_weights("vgg16", path)
    with pytest.raises(WeightsError, match="says itself what it holds"):
        read_weights(path, SMALL, preprocessing="caffe")

    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged: its weights have the digest"):
        load_weights(SMALL, path)


def test_run_directory_and_its_fully_connected_head(small: Any, tmp_path: Path) -> None:
    """A task's model file: the trunk inside the encoder, its buffers, and a head with VGG's own layers."""
    trunk = paper_names(small.features)
    tensors = {f"encoder.trunk.{key}": value for key, value in trunk.items()}
    tensors |= {"encoder.mean": torch.zeros(1, 3, 1, 1), "encoder.std": torch.ones(1, 3, 1, 1)}
    header = FileHeader(
        "classifier", SMALL, (0.0,) * 3, (1.0,) * 3, "random", weights_digest(trunk), {"task": {"classes": ["a"]}}
    )
    run = tmp_path / "runs" / "1"
    write_weights(run / "model.safetensors", tensors, header)
    loaded = load_weights(SMALL, run)
    assert_same(loaded.trunk, trunk)
    assert (loaded.mean, loaded.std) == ((0.0,) * 3, (1.0,) * 3)
    assert loaded.origin == f"{run / 'model.safetensors'} (random)"
    assert loaded.digest == weights_digest(trunk)
    with pytest.raises(WeightsError, match=r"does not hold the fully connected layers \(fc6\.bias is missing\)"):
        load_weights(SMALL, run, classifier=True)
    # A state dict of the encoder keeps its preprocessing as well.
    torch.save({f"encoder.{k.removeprefix('encoder.')}": v for k, v in tensors.items()}, tmp_path / "encoder.pth")
    assert load_weights(SMALL, tmp_path / "encoder.pth").std == (1.0, 1.0, 1.0)


def test_other_channels_and_fewer_blocks(tmp_path: Path) -> None:
    encoder = VGGEncoder(SMALL, weights=None, in_channels=1, depth=3)
    torch.save(encoder.state_dict(), tmp_path / "grey.pth")
    with pytest.raises(WeightsError, match=f"holds only 3 of the 5 blocks of {SMALL}"):
        load_weights(SMALL, tmp_path / "grey.pth")
    with pytest.raises(WeightsError, match="is for pictures of 1 channels, but 3 are needed"):
        load_weights(SMALL, tmp_path / "grey.pth", depth=3)
    loaded = load_weights(SMALL, tmp_path / "grey.pth", depth=3, in_channels=1)
    assert torch.equal(loaded.trunk["conv3_3.weight"], encoder.state_dict()["trunk.conv3_3.weight"])
    assert loaded.mean == pytest.approx([float(encoder.mean)] * 3)


# The cache and the hub.


@pytest.fixture
def published(small: Any, hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The hub with a small file under torchvision's and under timm's address of `SMALL`."""
    torch.save(small.state_dict(), tmp_path / "file.pth")
    body = (tmp_path / "file.pth").read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    monkeypatch.setitem(weight_sources._TORCHVISION, SMALL, digest)
    hub.path = f"/models/{SMALL}-{digest[:8]}.pth"
    hub.pages[hub.path] = type("Page", (), {"body": body, "status": 200, "headers": {}, "announced": None})

    as_safetensors(small, tmp_path / "model.safetensors")
    body = (tmp_path / "model.safetensors").read_bytes()
    monkeypatch.setitem(weight_sources._TIMM, SMALL, "")
    hub.timm_path = f"/timm/{SMALL}.tv_in1k/resolve/main/model.safetensors"
    headers = {"X-Linked-ETag": hashlib.sha256(body).hexdigest()}
    hub.pages[hub.timm_path] = type("Page", (), {"body": body, "status": 200, "headers": headers, "announced": None})
    return hub


@pytest.mark.parametrize("name", ["default", "torchvision", "timm"])
def test_fetched_once_and_kept_as_a_trunk(published: Any, small: Any, cache: Path, name: str) -> None:
    loaded = load_weights(SMALL, name)
    assert_same(loaded.trunk, paper_names(small.features))
    assert (loaded.mean, loaded.std) == (TORCHVISION.mean, TORCHVISION.std)
    assert loaded.origin.startswith("timm/" if name == "timm" else "torchvision vgg16_bn_x0_25-")
    files = [file.name for file in (cache / "weights").iterdir() if file.suffix != ".lock"]
    assert files == [find_source(SMALL, name).path.name]

    published.pages.clear()
    again = load_weights(SMALL, name)
    assert_same(again.trunk, loaded.trunk)
    assert (again.origin, again.digest) == (loaded.origin, loaded.digest)
    assert published.requests == [published.timm_path if name == "timm" else published.path]
    encoder = VGGEncoder(SMALL, weights=name)
    assert (encoder.origin, encoder.digest) == (loaded.origin, loaded.digest)


def test_damaged_cache_is_fetched_again(
    published: Any, small: Any, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_weights(SMALL, "default")
    path = find_source(SMALL, "default").path
    whole = path.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damage)
        assert_same(load_weights(SMALL, "default").trunk, paper_names(small.features))
        assert "fetching it again" in capsys.readouterr().err
        assert path.read_bytes() == whole
    assert len(published.requests) == 4

    path.write_bytes(b"")
    published.pages.clear()
    with pytest.raises(WeightsError, match="cannot download"):
        load_weights(SMALL, "default")


def test_bad_downloads_are_not_kept(published: Any, cache: Path) -> None:
    page = published.pages[published.path]
    whole = page.body
    for page.body, page.announced, message in (
        (whole[:-1] + b"x", None, "SHA-256"),
        (whole[:1000], len(whole), "ended after 1,000 of"),
        (b"<html>", None, "HTML page"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_weights(SMALL, "default")
        assert [file.suffix for file in (cache / "weights").iterdir()] in ([], [".lock"])
    page.body, page.announced = whole, None
    load_weights(SMALL, "default")


def test_file_of_another_architecture_is_not_kept(
    published: Any, plain: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(plain.state_dict(), tmp_path / "other.pth")
    body = (tmp_path / "other.pth").read_bytes()
    monkeypatch.setitem(weight_sources._TORCHVISION, SMALL, hashlib.sha256(body).hexdigest())
    source = find_source(SMALL, "default")
    published.pages[f"/models/{source.file_name}"] = type(
        "Page", (), {"body": body, "status": 200, "headers": {}, "announced": None}
    )
    with pytest.raises(WeightsError, match=f"looks like vgg11, not {SMALL}"):
        load_weights(SMALL, "default")
    assert not source.path.exists()


def test_leftovers_of_a_killed_download_go(published: Any, cache: Path) -> None:
    path = find_source(SMALL, "default").path
    path.parent.mkdir(parents=True)
    leftovers = [
        path.with_name(f".{path.stem}-complete.99-abc.pth"),
        path.with_name(f".{path.stem}.99-abc.safetensors"),
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    load_weights(SMALL, "default")
    assert not any(leftover.exists() for leftover in leftovers)


def test_processes_that_start_together_download_once(published: Any, small: Any) -> None:
    """Threads here: the lock is on an open file, so it holds between threads and processes alike."""
    page = published.pages[published.path]
    body, waits = page.body, time.sleep

    class Slow(type(page) if not isinstance(page, type) else page):  # type: ignore[misc]
        @property
        def body(self) -> bytes:
            waits(0.3)
            return bytes(body)

    published.pages[published.path] = Slow()
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(load_weights(SMALL, "default").digest)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [weights_digest(paper_names(small.features))] * 4
    assert published.requests == [published.path]


def test_cache_that_cannot_be_written(published: Any, cache: Path) -> None:
    cache.parent.joinpath("cache").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match=r"cannot write to the cache folder .*set VGGTRANSFER_CACHE"):
        load_weights(SMALL, "default")


@pytest.mark.slow
def test_classifier_is_kept_beside_the_trunk(
    plain: Any, hub: Any, cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """With real sizes: 0.5 GB are written, served, converted and read."""
    state = plain.state_dict()
    names = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    for key, value in classifier_tensors().items():
        state[f"{names[key[:3]]}{key[3:]}"] = value.contiguous()
    torch.save(state, tmp_path / "vgg11.pth")
    body = (tmp_path / "vgg11.pth").read_bytes()
    monkeypatch.setitem(weight_sources._TORCHVISION, "vgg11", hashlib.sha256(body).hexdigest())
    source = find_source("vgg11", "torchvision")
    hub.pages[f"/models/{source.file_name}"] = type(
        "Page", (), {"body": body, "status": 200, "headers": {}, "announced": None}
    )
    assert load_weights("vgg11", "torchvision").classifier == {}
    assert not classifier_path(source.path).exists()
    for _ in range(2):
        loaded = load_weights("vgg11", "torchvision", classifier=True)
        assert_same(loaded.classifier, classifier_tensors())
    assert len(hub.requests) == 2
    assert source.path.stat().st_size < 40e6
    with pytest.raises(WeightsError, match="holds only fully connected layers"):
        load_weights("vgg11", classifier_path(source.path))


def test_classifier_of_another_size_is_refused(small: Any, tmp_path: Path) -> None:
    state = small.state_dict()
    for index, shape in ((0, (4096, 512)), (3, (4096, 4096)), (6, (10, 4096))):
        state |= {
            f"classifier.{index}.weight": torch.zeros(1, dtype=torch.float16).expand(shape),
            f"classifier.{index}.bias": torch.zeros(shape[0]),
        }
    torch.save(state, tmp_path / "cifar.pth")
    assert load_weights(SMALL, tmp_path / "cifar.pth").classifier == {}
    with pytest.raises(WeightsError, match=re.escape("fc6.weight is [4096, 512] instead of [4096, 25088]")):
        load_weights(SMALL, tmp_path / "cifar.pth", classifier=True)


# The table of sources.


def test_addresses_are_torchvisions_and_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    import torchvision

    monkeypatch.delenv("VGGTRANSFER_TORCHVISION_URL")
    monkeypatch.delenv("HF_ENDPOINT")
    models = [name for name in ARCHITECTURE_NAMES if name in torchvision.models.list_models()]
    assert len(models) == 8
    for arch in models:
        default, other = sources_of(arch)
        assert (default.name, other.name) == ("torchvision", "timm")
        assert default.url == torchvision.models.get_model_weights(arch).DEFAULT.url
        assert default.sha256.startswith(default.url[-12:-4])
        config = timm.get_pretrained_cfg(arch)
        assert config is not None
        assert other.url == f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
        for source in (default, other):
            assert re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{8}|", source.sha256)
    digests = [source.sha256 for arch in models for source in sources_of(arch) if source.sha256]
    assert len(digests) == len(set(digests))


@pytest.mark.parametrize(
    ("arch", "weights", "message"),
    [
        ("vgg11_lrn", "default", r"no published weights of vgg11_lrn in this package .*--weights none"),
        ("vgg16_1x1", "torchvision", r"no published weights of vgg16_1x1"),
        (SMALL, "timm", r"'timm' has no weights of vgg16_bn_x0_25, only of vgg11, .*use weights='embedded'"),
        ("vgg16", "embedded", r"'embedded' has no weights of vgg16, only of vgg16_bn_x0_25; .*'torchvision'"),
        ("vgg16", "torchvison", r"unknown weights 'torchvison' \(did you mean 'torchvision'\?\); known: default"),
        ("vgg16", "none", "use weights=None"),
        ("vgg16", "no/such/file.pth", r"there is no weights file no/such/file\.pth \(looked in .*such\)"),
        ("vgg16", "vgg.pth", r"there is no weights file vgg\.pth"),
        ("vgg16", Path("timm"), "there is no weights file timm"),
        ("vgg16", "default", r"cannot download http://127\.0\.0\.1:9/models/vgg16-397923af\.pth: .*without network"),
        ("vgg16", "timm", r"cannot download http://127\.0\.0\.1:9/timm/vgg16\.tv_in1k/"),
    ],
)
def test_what_cannot_be_found(arch: str, weights: str | Path, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(arch, weights)
    assert "\n" not in str(caught.value)


def test_unknown_architecture_and_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown architecture 'vgg17' \(did you mean"):
        load_weights("vgg17", "default")
    with pytest.raises(WeightsError, match=r"is not a run directory: it has no model\.safetensors"):
        load_weights("vgg16", tmp_path)


# Files that are not what they seem.


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_code_in_a_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": small.state_dict(), "extra": Bomb()}, "new.pth")
    torch.save({"state_dict": small.state_dict(), "extra": Bomb()}, "old.pth", _use_new_zipfile_serialization=False)
    torch.save(small, "model.pth")
    Path("plain.pkl").write_bytes(pickle.dumps({"extra": Bomb()}, protocol=2))
    for name in ("new.pth", "old.pth", "model.pth", "plain.pkl"):
        with pytest.raises(WeightsError, match=r"holds Python objects besides tensors.*torch\.save\(model\.state_dict"):
            load_weights(SMALL, tmp_path / name)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("save", [as_torchvision, as_old_torch, as_safetensors])
def test_half_a_file(small: Any, tmp_path: Path, save: Any, fraction: float) -> None:
    path = tmp_path / "file.pth"
    save(small, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(WeightsError, match=r"damaged") as caught:
        load_weights(SMALL, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html>\n<html>", "is an HTML page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"\x00\x01\x02 anything else at all", "not a weights file that can be read here"),
        (b"PK\x03\x04 no archive", "is damaged"),
        (b"\x80\x02 no pickle", "is damaged"),
        (b"\x89HDF\r\n\x1a\n no hdf5", "is damaged"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{no json........", "is damaged"),
    ],
)
def test_no_weights_at_all(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vgg16.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights("vgg16", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_peoples_files(tmp_path: Path, small: Any) -> None:
    import h5py

    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "log.pth")
    torch.save({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but its files are around
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "script.pth")
    with h5py.File(tmp_path / "resnet.h5", "w") as file:
        file["conv1_conv/kernel:0"] = 1.0
    for name, message in (
        ("list.pth", r"holds no state dict \(found: list\)"),
        ("log.pth", r"holds no state dict \(found: epoch, loss\)"),
        ("resnet.pth", r"holds no VGG trunk; its keys are conv1\.weight, layer1\.0\.conv1\.weight"),
        ("script.pth", r"TorchScript"),
        ("resnet.h5", "holds none of Keras's VGG layers"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            load_weights("vgg16", tmp_path / name)
        assert "\n" not in str(caught.value)


def test_future_and_broken_headers(tmp_path: Path, small: Any) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "own.safetensors"
    for header, message in (
        ('{"format": 2}', "written by another version"),
        ('{"format": 1, "kind": "trunk"}', "damaged header"),
        ("[]", "damaged header"),
        ("no json", "damaged header"),
    ):
        save_file(paper_names(small.features), path, metadata={"vggtransfer": header})
        with pytest.raises(WeightsError, match=message):
            load_weights(SMALL, path)


def test_digest_depends_on_names_types_shapes_and_values() -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    others = (
        {"a": torch.zeros(3, 2), "b": tensors["b"]},
        {"a": torch.zeros(2, 3, dtype=torch.float64), "b": tensors["b"]},
        {"a": tensors["a"], "c": tensors["b"]},
        {"a": tensors["a"] + 1e-30, "b": tensors["b"]},
    )
    digests = {weights_digest(each) for each in (tensors, *others)}
    assert len(digests) == 5
    assert weights_digest(dict(reversed(tensors.items()))) == weights_digest(tensors)
    transposed = torch.arange(6.0).view(2, 3).T
    assert weights_digest({"a": transposed}) == weights_digest({"a": transposed.contiguous()})

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.encoder.weight_files import read_weights, save_weights
from vggtransfer.encoder.weight_sources import classifier_path, find_source
from vggtransfer.encoder.weights_commands import convert_weights, fetch_weights, list_weights, weights_path
from vggtransfer.errors import OptionError, WeightsError

SMALL = "vgg16_bn_x0_25"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small trunk under torchvision's key names, as `torch.save(vgg.features.state_dict())` writes it."""
    encoder = VGGEncoder(SMALL, weights=None)
    state = {
        f"features.{position}.{name}": value
        for position, module in enumerate(encoder.trunk.values())
        for name, value in module.state_dict().items()
    }
    torch.save(state, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


@pytest.fixture
def cached(checkpoint: Path) -> Path:
    """vgg16's torchvision weights, as far as the cache can tell."""
    path = find_source("vgg16", "default").path
    save_weights(path, read_weights(checkpoint, None))
    return path


def test_convert_finds_out_and_says_what_it_did(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "own.safetensors"
    result = convert_weights(checkpoint, out=out)
    assert (result.architecture, result.path, result.classifier_path) == (SMALL, out, None)
    assert result.layout == "torchvision"
    assert result.bytes == out.stat().st_size
    printed = capsys.readouterr().out
    for shown in (SMALL, str(checkpoint), str(out), "RGB, ImageNet mean and std", result.digest):
        assert shown in printed

    encoder = VGGEncoder(SMALL, weights=out)
    assert encoder.digest == result.digest
    assert encoder.origin == result.origin


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "vgg16"}, f"looks like {SMALL}, not vgg16"),
        ({"layout": "keras"}, "key names of torchvision, not of keras"),
        ({"classifier": True}, "does not hold the fully connected layers"),
        ({"out": Path("own.pth")}, r"out=own\.pth must end with \.safetensors"),
    ],
)
def test_convert_refuses(checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((WeightsError, OptionError), match=message):
        convert_weights(checkpoint, **{"out": tmp_path / "own.safetensors"} | options)
    assert not (tmp_path / "own.safetensors").exists()


def test_convert_halves_the_size(checkpoint: Path, tmp_path: Path) -> None:
    whole = convert_weights(checkpoint, out=tmp_path / "whole.safetensors")
    half = convert_weights(checkpoint, out=tmp_path / "half.safetensors", half=True, origin="our own training")
    assert 0.5 < half.bytes / whole.bytes < 0.52
    assert (half.origin, half.digest == whole.digest) == ("our own training", False)
    encoder, reference = (VGGEncoder(SMALL, weights=file.path, unfreeze="none").eval() for file in (half, whole))
    assert encoder.origin == "our own training"
    assert torch.equal(encoder.trunk["bn5_3"].running_var, reference.trunk["bn5_3"].running_var)
    images = torch.rand(2, 3, 64, 64)
    for tap, exact in zip(encoder(images), reference(images), strict=True):
        torch.testing.assert_close(tap, exact, rtol=0, atol=2e-3 * exact.abs().max().item())


def test_half_precision_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    encoder = VGGEncoder(SMALL, weights=None)
    state = {
        f"features.{place}.{name}": value
        for place, module in enumerate(encoder.trunk.values())
        for name, value in module.state_dict().items()
    }
    state["features.0.weight"][0, 0, 0, 0] = 1e5
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(WeightsError, match=r"conv1_1\.weight has values that float16 cannot hold"):
        convert_weights(tmp_path / "large.pth", out=tmp_path / "own.safetensors", half=True)
    assert not (tmp_path / "own.safetensors").exists()


def test_convert_never_writes_over_its_source(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    convert_weights(checkpoint, out=path)
    with pytest.raises(OptionError, match="is the file to convert"):
        convert_weights(path, out=path)
    classifier_path(path).write_bytes(b"of earlier weights")
    convert_weights(checkpoint, out=path)
    assert not classifier_path(path).exists()


def test_convert_preprocessing_reaches_the_encoder(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    assert convert_weights(checkpoint, out=out, preprocessing="none").preprocessing.startswith("none")
    encoder = VGGEncoder(SMALL, weights=out)
    assert encoder.mean.flatten().tolist() == [0, 0, 0]
    assert encoder.std.flatten().tolist() == [1, 1, 1]


def test_list_shows_what_is_cached(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = list_weights(format="json")
    printed = json.loads(capsys.readouterr().out)
    assert printed == result.as_dict()
    assert len(result.weights) == 17
    assert result.without_weights == ("vgg11_lrn", "vgg16_1x1")
    rows = {(row.architecture, row.source): row for row in result.weights}
    assert [key for key, row in rows.items() if row.cached] == [("vgg16", "torchvision"), (SMALL, "embedded")]
    row = rows["vgg16", "torchvision"]
    assert (row.default, row.path, row.bytes) == (True, cached, cached.stat().st_size)
    assert not rows["vgg16", "timm"].default

    list_weights()
    out, err = capsys.readouterr()
    assert err == ""
    assert f"trunk, {cached.stat().st_size / 1e6:.3g} MB" in out
    assert str(cached) in out
    assert str(cached.parent) in out
    with pytest.raises(OptionError, match="format=xml"):
        list_weights(format="xml")  # type: ignore[arg-type]


def test_path_prints_only_the_path(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weights_path("vgg16").path == cached
    assert capsys.readouterr().out == f"{cached}\n"
    with pytest.raises(WeightsError, match=r"get them with: vggtransfer weights fetch vgg19 --source timm"):
        weights_path("vgg19", source="timm")


def test_fetch_reads_the_cache_without_network(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vggtransfer.encoder import weight_sources

    monkeypatch.setitem(weight_sources._TORCHVISION, SMALL, "12345678")
    path = find_source(SMALL, "torchvision").path
    save_weights(path, read_weights(checkpoint, SMALL))
    result = fetch_weights(SMALL, source="torchvision")
    assert (result.path, result.classifier_path, result.bytes) == (path, None, path.stat().st_size)
    assert str(path) in capsys.readouterr().out
    with pytest.raises(WeightsError, match="cannot download"):
        fetch_weights("vgg19")


def test_commands_without_torch() -> None:
    """`--help`, `weights list` and `weights path` answer at once."""
    script = (
        "import sys; from vggtransfer.encoder import weights_commands as w; w.list_weights(); "
        "sys.exit(bool({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)

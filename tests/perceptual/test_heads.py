from __future__ import annotations

import importlib.util
from pathlib import Path

import DISTS_pytorch
import lpips
import pytest
import torch
import torchmetrics

from vggtransfer.errors import WeightsError
from vggtransfer.perceptual.heads import load_dists_weights, load_lpips_heads

LPIPS_FILES = Path(lpips.__file__).parent / "weights"
DISTS_FILE = Path(DISTS_pytorch.__file__).parent / "weights.pt"


def test_heads_are_found_in_every_file_that_has_them(tmp_path: Path) -> None:
    named = load_lpips_heads("lpips", version="0.1")
    assert named.origin == str(LPIPS_FILES / "v0.1" / "vgg.pth")
    assert [len(weight) for weight in named.weights] == [64, 128, 256, 512, 512]
    copy = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/vgg.pth"
    content = torch.load(named.origin, map_location="cpu", weights_only=True)
    torch.save([content[name] for name in sorted(content)], tmp_path / "list.pt")  # as piq's
    whole = {"net.slice1.0.weight": torch.zeros(64, 3, 3, 3)} | content
    torch.save(whole | {f"lins.{name[3:]}": head for name, head in content.items()}, tmp_path / "whole.pth")
    for path in (copy, tmp_path / "list.pt", tmp_path / "whole.pth"):
        assert load_lpips_heads(path, version="0.1").digest == named.digest
    assert load_lpips_heads("lpips", version="0.0").digest != named.digest

    weights = load_dists_weights("DISTS_pytorch")
    assert weights.origin == str(DISTS_FILE)
    assert [len(part) for part in weights.weights] == [3, 64, 128, 256, 512, 512] * 2


def test_another_kind_of_file_is_an_error_that_says_what_it_is(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "backbone.pth")
    torch.save({"alpha": torch.zeros(1, 3, 1, 1), "beta": torch.zeros(1, 3, 1, 1)}, tmp_path / "short.pt")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    (tmp_path / "half.pth").write_bytes((LPIPS_FILES / "v0.1" / "vgg.pth").read_bytes()[:3000])
    for path, message in (
        (tmp_path / "backbone.pth", "a backbone"),
        (LPIPS_FILES / "v0.1" / "alex.pth", "LPIPS heads of alexnet"),
        (LPIPS_FILES / "v0.1" / "squeeze.pth", "LPIPS heads of squeezenet"),
        (DISTS_FILE, "DISTS weights"),
        (LPIPS_FILES / "v0.0" / "vgg.pth", "version 0.0, but version=0.1"),
        (tmp_path / "other.pt", "fc.weight"),
        (tmp_path / "half.pth", "damaged"),
        (tmp_path / "none.pth", "cannot read"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_lpips_heads(path, version="0.1")
    for path, message in (
        (LPIPS_FILES / "v0.1" / "vgg.pth", "LPIPS heads of vgg16"),
        (tmp_path / "backbone.pth", "a backbone"),
        (tmp_path / "short.pt", "another size than DISTS' 1475"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_dists_weights(path)


def test_without_the_packages_torchmetrics_copies_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("lpips", "DISTS_pytorch") else find(name)
    )
    assert "torchmetrics" in load_lpips_heads("lpips", version="0.1").origin
    assert "torchmetrics" in load_dists_weights("DISTS_pytorch").origin
    with pytest.raises(WeightsError, match="pip install lpips"):
        load_lpips_heads("lpips", version="0.0")

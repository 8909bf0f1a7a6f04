"""`finetune --cache`: the same training with less arithmetic."""

from __future__ import annotations

import csv
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vggtransfer.cache import cache_folder
from vggtransfer.classification import inference
from vggtransfer.classification.class_maps import class_maps, class_maps_of_stage
from vggtransfer.classification.inference import score_maps, score_pictures
from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.recipe import finetune
from vggtransfer.data.dataset import PictureDataset
from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import read_split
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.errors import BadImageError, OptionError, TrainingError
from vggtransfer.features import cached_pictures
from vggtransfer.features.cached_stage import CachedStage
from vggtransfer.features.frozen_prefix import FrozenPrefix
from vggtransfer.training.checkpoint import load_checkpoint
from vggtransfer.training.interruption import TrainingInterrupted
from vggtransfer.training.loop import Fit

SETTINGS: dict[str, Any] = {
    "arch": "vgg16_bn_x0_25",
    "weights": "embedded",
    "unfreeze": "block5",
    "image_size": 32,
    "augmentation": "mirror",
    "epochs": 3,
    "batch_size": 4,
    "lr": 3e-3,
    "precision": "fp32",
    "workers": 0,
    "device": "cpu",
}


@pytest.fixture
def data(tmp_path: Path, write_colours: Callable[..., list[Path]]) -> Path:
    write_colours(tmp_path / "data" / "train", count=4)
    write_colours(tmp_path / "data" / "val", count=2, seed=1)
    return tmp_path / "data"


def losses(run: Path) -> list[float]:
    rows = csv.DictReader((run / "metrics.csv").read_text(encoding="utf-8").splitlines())
    return [float(row[name]) for row in rows for name in ("train_loss", "val_loss")]


@pytest.fixture
def count_pictures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts in its only element how many pictures are decoded, for the cache or without it."""
    count = [0]
    original = PictureDataset.__getitem__

    def counting(self: PictureDataset, key: Any) -> Any:
        count[0] += 1
        return original(self, key)

    read = cached_pictures._unchanged

    def counting_read(*arguments: Any) -> bytes:
        count[0] += 1
        return read(*arguments)

    monkeypatch.setattr(PictureDataset, "__getitem__", counting)
    monkeypatch.setattr(cached_pictures, "_unchanged", counting_read)
    return count


@pytest.mark.parametrize(
    ("where", "changes"),
    [
        ("disk", {"augmentation": "none"}),
        ("disk", {"augmentation": "standard", "views": 3}),
        ("disk", {"unfreeze": "none block5@1 block4-block5@2"}),
        ("memory", {}),
        ("memory", {"unfreeze": "none", "head": "mlp"}),
        ("memory", {"unfreeze": "none", "ema": 0.5, "sampling": "balanced", "accumulate": 2}),
    ],
)
def test_cached_and_uncached_runs_give_the_same_losses(
    data: Path, tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    settings = {**SETTINGS, **changes}
    finetune(data, **settings, cache="off", out=tmp_path / "off")
    finetune(data, **settings, cache=where, out=tmp_path / "on")
    assert losses(tmp_path / "on") == pytest.approx(losses(tmp_path / "off"), rel=1e-5)
    assert len(set(losses(tmp_path / "off"))) > 3  # something has been learnt


def test_crops_are_exact_but_for_the_border(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SETTINGS, "augmentation": "crops", "image_size": 64, "unfreeze": "none"}
    finetune(data, **settings, cache="off", out=tmp_path / "off")
    finetune(data, **settings, cache="memory", out=tmp_path / "on")
    assert "cache: in memory; relu5_3 in fp32 for 2 views" in capsys.readouterr().out
    assert losses(tmp_path / "on") == pytest.approx(losses(tmp_path / "off"), rel=0.05)


def test_each_view_of_a_picture_is_computed_once_and_found_by_the_next_run(
    data: Path, tmp_path: Path, count_pictures: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(data, **SETTINGS, cache="disk", out=tmp_path / "1")
    assert count_pictures[0] == 16 + 8  # the report scores the maps as well
    assert "pool4 in fp32 for 2 views of each training picture" in capsys.readouterr().out
    count_pictures[0] = 0
    finetune(data, **{**SETTINGS, "lr": 1e-3, "epochs": 5}, cache="disk", out=tmp_path / "2")
    assert count_pictures[0] == 0
    assert "100% of them found" in capsys.readouterr().out
    for changes in ({"image_size": 48}, {"unfreeze": "block4-block5"}, {"cache_precision": "bf16"}):
        count_pictures[0] = 0
        finetune(data, **{**SETTINGS, **changes}, cache="disk", out=tmp_path / str(changes))
        assert count_pictures[0] == 16 + 8, changes


def test_a_changed_picture_is_computed_anew(
    data: Path, tmp_path: Path, count_pictures: list[int], write_colours: Callable[..., list[Path]]
) -> None:
    finetune(data, **SETTINGS, cache="disk", out=tmp_path / "1")
    (data / "train" / "red" / "0.png").rename(data / "train" / "red" / "renamed.png")
    write_colours(data / "train", count=1, colours=["blue"], seed=7)
    count_pictures[0] = 0
    finetune(data, **SETTINGS, cache="disk", out=tmp_path / "2")
    assert count_pictures[0] == 1


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_stopping_and_resuming_changes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Stops while maps are computed, in the middle of an epoch, and in the second stage."""
    settings = {**SETTINGS, "unfreeze": "none block5@1"}
    finetune(data, **settings, cache=where, out=tmp_path / "whole")
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))  # with nothing in it yet
    calls = 0
    compute, step = FrozenPrefix.__call__, Fit._step

    def interrupting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls in (4, 12, 24):
                os.kill(os.getpid(), signal.SIGINT)
            return original(*arguments)

        return call

    monkeypatch.setattr(FrozenPrefix, "__call__", interrupting(compute))
    monkeypatch.setattr(Fit, "_step", interrupting(step))
    with pytest.raises(TrainingInterrupted, match="--resume"):
        finetune(data, **settings, cache=where, out=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")["progress"] == {**load_checkpoint(tmp_path / "run")["progress"], "step": 0}
    assert bool(list((tmp_path / "cache").rglob("*.keys"))) == (where == "disk")  # what was computed is kept
    for _ in range(2):
        with pytest.raises(TrainingInterrupted, match="--resume"):
            finetune(resume=tmp_path / "run")
    finetune(resume=tmp_path / "run")
    whole, run = (load_checkpoint(tmp_path / name)["model"] for name in ("whole", "run"))
    assert [name for name in whole if not torch.equal(whole[name], run[name])] == []


def test_resuming_elsewhere_may_keep_maps_or_not(data: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 2}
    finetune(data, **settings, cache="off", out=tmp_path / "run")
    finetune(resume=tmp_path / "run", epochs=3, cache="memory")
    finetune(data, **settings, cache="memory", out=tmp_path / "other")
    finetune(resume=tmp_path / "other", epochs=3, cache="off")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "other"), rel=1e-5)


def test_bad_pictures_are_left_out(data: Path, tmp_path: Path) -> None:
    (data / "train" / "red" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    finetune(data, **SETTINGS, cache="disk", out=tmp_path / "run")
    assert "bad.jpg" in (tmp_path / "run" / "bad_images.csv").read_text()
    finetune(data, **SETTINGS, cache="off", out=tmp_path / "off")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "off"), rel=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_changes_before_its_maps_are_computed_is_named(
    data: Path,
    tmp_path: Path,
    write_colours: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    """Others would find its maps under the hash of what was there before."""
    settings = {**SETTINGS, "unfreeze": "none block5@1", "workers": workers}
    changed = data / "train" / "red" / "0.png"

    def change(*_: Any) -> None:
        write_colours(data / "train", count=1, colours=["red"], seed=8)

    original = Fit._end_epoch

    def end(self: Fit, *arguments: Any) -> None:
        original(self, *arguments)
        change()

    monkeypatch.setattr(Fit, "_end_epoch", end)
    with pytest.raises(BadImageError, match=f"{changed}: has changed since"):
        finetune(data, **settings, cache="memory", out=tmp_path / "run")


def test_auto_says_what_it_does_and_why(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(**changes: Any) -> str:
        finetune(data, **{**SETTINGS, "epochs": 1, **changes}, out=tmp_path / str(len(list(tmp_path.iterdir()))))
        return " ".join(re.findall(r"^cache: .*$", capsys.readouterr().out, flags=re.MULTILINE))

    assert re.search("cache: on disk in .*; pool4 in fp32 for one view", said(augmentation="none", epochs=9))
    assert "of the arithmetic, and maps to read" in said(augmentation="light", views=9)
    assert "light makes new pictures in every epoch; --augmentation mirror" in said(augmentation="light")
    assert "nothing is frozen" in said(unfreeze="all")
    assert "cache: in memory" in said(augmentation="none", epochs=9, cache_size=0.0, unfreeze="none")
    assert "mixup and cutmix make new pictures in every step" in said(mixup=0.2)
    assert said(cache="off") == ""


def test_an_average_that_still_follows_its_old_weights_is_not_taken_for_frozen(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SETTINGS, "unfreeze": "all block5@2", "ema": 0.9, "epochs": 4}
    finetune(data, **settings, cache="memory", out=tmp_path / "on")
    assert "moving average" in capsys.readouterr().out
    finetune(data, **settings, cache="off", out=tmp_path / "off")
    assert losses(tmp_path / "on") == losses(tmp_path / "off")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augmentation": "light"}, "--cache disk is not possible: light makes new pictures in every epoch"),
        ({"mixup": 0.2}, "--cache disk is not possible: mixup"),
        ({"cache_size": 0.00001}, r"--cache disk is not possible: 81.9 kB of maps have no room \(10.0 kB may be added"),
        ({"augmentation": "mirror", "views": 2}, "--views 2 is not for the augmentation 'mirror'"),
    ],
)
def test_what_cannot_be_kept_is_refused(data: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        finetune(data, **{**SETTINGS, **changes}, cache="disk", out=tmp_path / "run")


def test_a_full_disk_is_told_in_one_line_or_does_no_harm(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vggtransfer.features import map_store

    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(map_store, "write_atomically", full)
    with pytest.raises(TrainingError, match=r"cannot write maps to .*No space left on device; make room"):
        finetune(data, **SETTINGS, cache="disk", out=tmp_path / "run")
    finetune(data, **{**SETTINGS, "epochs": 9}, out=tmp_path / "auto")
    assert "cache: off; cannot write maps to" in capsys.readouterr().out


def test_the_cache_stays_within_its_size(
    data: Path, tmp_path: Path, write_colours: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vggtransfer.features import map_eviction

    monkeypatch.setattr(map_eviction, "_SECONDS_IN_USE", -10)  # as if all runs were long ago
    write_colours(tmp_path / "other" / "train", count=4, seed=5)
    write_colours(tmp_path / "other" / "val", count=2, seed=6)
    for number, folder in enumerate((data, tmp_path / "other", data)):
        finetune(folder, **SETTINGS, cache="disk", cache_size=100e-6, out=tmp_path / str(number))
        written = sum(path.stat().st_size for path in (cache_folder() / "maps").rglob("*") if path.is_file())
        assert 81_920 < written <= 100_000


def test_the_report_scores_maps_as_it_would_score_pictures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[VGGClassifier, CachedStage, torch.Tensor]] = []

    def watched(model: VGGClassifier, stage: CachedStage, **options: Any) -> torch.Tensor:
        calls.append((model, stage, score_maps(model, stage, **options)))
        return calls[-1][2]

    monkeypatch.setattr(inference, "score_maps", watched)
    finetune(data, **SETTINGS, cache="memory", out=tmp_path / "run")
    ((model, stage, scores),) = calls
    _, samples = read_split(data, "val")
    expected, _ = score_pictures(model, samples, precision="fp32", workers=0)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)
    assert [stage.leaves(layer, model) for layer in ("pool4", "relu5_3")] == [False, True]
    asked = torch.tensor([1, 0])
    pictures = [evaluation_transform(32)(decode_image(samples[place].path), key=0) for place in (6, 2)]
    np.testing.assert_allclose(
        class_maps_of_stage(model, stage, [6, 2], asked, layer="relu5_3", precision="fp32"),
        class_maps(model, pictures, asked, layer="relu5_3", precision="fp32"),
        rtol=1e-3,
        atol=1e-5,
    )
    assert stage.fits(model)
    torch.nn.init.zeros_(model.encoder.trunk["conv1_1"].weight)
    assert not stage.fits(model)

"""The main job on real pictures, where a development machine has them."""

import os
import zipfile
from pathlib import Path

import pytest

from vggtransfer import evaluate, finetune, predict

ARCHIVE = Path(os.environ.get("VGGTRANSFER_DATA", Path(__file__).parents[2] / "shared" / "data")) / "flowers12.zip"


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.is_file(), reason="no flowers12.zip in VGGTRANSFER_DATA")
def test_real_flowers_are_learnt_from_scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path / "flowers")
    run = finetune(
        tmp_path / "flowers",
        arch="vgg16_bn_x0_25",
        weights="none",
        unfreeze="block5",
        image_size=64,
        epochs=10,
        lr=3e-3,
        dropout=0.0,
        out=tmp_path / "run",
    ).run
    scores = evaluate(tmp_path / "flowers", model=run, tta="flip", out=tmp_path / "evaluation").scores
    assert scores.pictures == 240
    assert scores.top1_accuracy > 0.4  # guessing gives 0.083
    labels = predict([str(tmp_path / "flowers" / "test" / "sunflower")], model=run).labels
    assert len(labels) == 20

"""A network trained for search: `finetune --head arcface`, then its run as the encoder of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggtransfer.classification.evaluation import evaluate
from vggtransfer.classification.explanation import explain
from vggtransfer.classification.prediction import predict
from vggtransfer.classification.recipe import finetune
from vggtransfer.retrieval.embedder import Embedder


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_run_of_arcface_serves_every_command_and_embeds_with_its_own_exponent(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = tmp_path / "colours" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 200, (32, 32, 3))
                pixels[..., 2 - label] += 55
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    result = finetune(
        tmp_path / "colours",
        arch="vgg16_bn_x0_25",
        head="arcface",
        image_size=32,
        augmentation="none",
        epochs=4,
        batch_size=12,
        lr=1e-2,
        dropout=0.0,
        label_smoothing=0.0,
        workers=0,
        precision="fp32",
        device="cpu",
        out=tmp_path / "run",
    )
    assert result.best_accuracy > 0.9
    paths = sorted((tmp_path / "colours" / "val").rglob("*.png"))
    names = [str(path) for path in paths[:2]]
    common = {"model": result.run, "workers": 0, "precision": "fp32", "device": "cpu"}
    scores = evaluate(tmp_path / "colours", split="val", **common).scores
    assert scores.top1_accuracy == result.best_accuracy
    assert [row.path for row in predict(names, **common).rows] == paths[:2]
    assert len(list(explain(names, **common).out.glob("*.png"))) >= 2

    embedder = Embedder(model=result.run, precision="fp32", device="cpu")
    assert embedder.image_size == 32
    exponent = embedder.description["gem_exponent"]
    assert exponent != 3
    assert exponent == pytest.approx(3, abs=0.5)
    plain = Embedder("vgg16_bn_x0_25", layer="pool5", pool="gem", image_size=32, precision="fp32", device="cpu")
    assert contrast(embedder.embed_pictures(paths)) > contrast(plain.embed_pictures(paths)) + 0.2


def contrast(vectors: np.ndarray) -> float:
    """How much larger cosines are within the three classes, four pictures each, than between them."""
    same = np.kron(np.eye(3, dtype=bool), np.ones((4, 4), dtype=bool))
    cosines = vectors @ vectors.T
    return float(cosines[same].mean() - cosines[~same].mean())

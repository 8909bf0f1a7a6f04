from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggtransfer.classification.model import Task, VGGClassifier, save_classifier
from vggtransfer.encoder.vgg import VGGEncoder

COLOURS = {"blue": (20, 30, 220), "green": (30, 200, 40), "red": (220, 20, 30), "white": (240, 240, 240)}


@pytest.fixture(autouse=True)
def temporary_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the user's cache, or as `runs/` to where the tests are started."""
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


def colour_picture(colour: str, *, seed: int) -> Image.Image:
    """A picture of one colour with some noise, so that no two are the same; its left half is darker."""
    noise = np.random.default_rng(seed).normal(0, 12, (40, 44, 3))
    pixels = np.asarray(COLOURS[colour]) + noise
    pixels[:, :22] *= 0.8
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def write_colours() -> Callable[..., list[Path]]:
    """Writes `count` pictures of each colour as FOLDER/COLOUR/N.png."""

    def write(folder: Path, *, count: int = 3, colours: Iterable[str] = COLOURS, seed: int = 0) -> list[Path]:
        paths = []
        for position, colour in enumerate(colours):
            (folder / colour).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = folder / colour / f"{number}.png"
                colour_picture(colour, seed=1000 * seed + 100 * position + number).save(path)
                paths.append(path)
        return paths

    return write


@pytest.fixture(scope="session")
def colour_classifier() -> VGGClassifier:
    """A classifier that knows the colours: random features, and a head that finds the nearest of four examples."""
    torch.manual_seed(0)
    classes = tuple(sorted(COLOURS))
    encoder = VGGEncoder("vgg16_bn_x0_25", weights=None, layers=["pool5"])
    model = VGGClassifier(encoder, Task(classes, 32, 1.0, "linear", 0.5)).eval()
    examples = [np.asarray(colour_picture(name, seed=9999).resize((32, 32))) for name in classes]
    images = torch.from_numpy(np.stack(examples)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        means = encoder(images)[-1].mean(dim=(2, 3))
        # -|x - mean|^2 without the |x|^2 that all classes share, so that the largest score is the nearest example.
        scale = 8 / torch.cdist(means, means).square().max()
        linear = model.head.get_submodule("linear")
        assert isinstance(linear, torch.nn.Linear)
        linear.weight.copy_(2 * scale * means)
        linear.bias.copy_(-scale * means.square().sum(dim=1))
    return model


@pytest.fixture
def colour_run(colour_classifier: VGGClassifier, tmp_path: Path) -> Path:
    """A run directory with nothing but the model."""
    save_classifier(colour_classifier, tmp_path / "run" / "model.safetensors")
    return tmp_path / "run"


@pytest.fixture
def record_pictures() -> Callable[..., None]:
    """Writes the pictures.csv of a run, as finetune does."""

    def record(run: Path, data: Path, **splits: Iterable[Path]) -> None:
        with (run / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split", "sha256"])
            for split, paths in splits.items():
                for path in paths:
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    writer.writerow([path.relative_to(data).as_posix(), path.parent.name, split, digest])

    return record

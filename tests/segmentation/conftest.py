from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

TRUE_COLOURS = np.array([[60, 60, 60], [230, 60, 40], [40, 90, 230]])


@pytest.fixture(autouse=True)
def temporary_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and a working directory that may be written to."""
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


def scene(seed: int, *, height: int = 40, width: int = 48) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A red box and a blue disk before grey; a picture and its classes 0, 1 and 2."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    top, left = random.integers(0, height - 20), random.integers(0, width - 20)
    mask[top : top + 18, left : left + 18] = 1
    centre = random.integers(10, height - 10), random.integers(10, width - 10)
    mask[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 70] = 2
    picture = TRUE_COLOURS[mask] + random.integers(-25, 26, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def write_scenes() -> Callable[..., Path]:
    """Writes pictures and masks in the layout SPLIT/images with SPLIT/masks."""

    def write(root: Path, **counts: int) -> Path:
        seed = 0
        for split, count in counts.items():
            for number in range(count):
                picture, mask = scene(seed := seed + 1, width=48 + 8 * (split != "train" and number % 2))
                for kind, pixels in (("images", picture), ("masks", mask)):
                    (root / split / kind).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(root / split / kind / f"{split}{number}.png")
        return root

    return write


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory, write_scenes: Callable[..., Path]) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=16, val=4, test=4)

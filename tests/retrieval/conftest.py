"""A collection of small pictures, and an embedder that costs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vggtransfer.retrieval.whitening import unit_rows


class ColourEmbedder:
    """Pixels of the picture at 4 x 4 as its vector: stands in for a network wherever that is not the matter."""

    image_size, crop_fraction, dimension = 32, 1.0, 48
    device = torch.device("cpu")
    weights, of_model, origin, precision, whitening = "colours", False, "made for tests", "fp32", None

    def __init__(self, version: str = "1") -> None:
        self.description: dict[str, Any] = {"architecture": "colours", "weights": version, "dimension": 48}
        self.digest = hashlib.sha256(version.encode()).hexdigest()
        self.embedded = 0

    def with_whitening(self, whitening: None) -> ColourEmbedder:
        return self

    def embed(self, pictures: Tensor) -> NDArray[np.float32]:
        self.embedded += len(pictures)
        pixels = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
        small = torch.nn.functional.adaptive_avg_pool2d(pixels, 4)
        return unit_rows(small.flatten(1).numpy() - 0.5)

    def embed_pictures(self, pictures: list[Any]) -> NDArray[np.float32]:
        arrays = []
        for picture in pictures:
            image = picture if isinstance(picture, Image.Image) else Image.open(picture)
            with image:
                arrays.append(np.asarray(image.convert("RGB")))
        rows: NDArray[np.float32] = self.embed(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2))
        self.embedded -= len(arrays)  # queries do not count
        return rows


def draw(path: Path, number: int) -> Path:
    """Writes the picture with a number: blocks of random colours, 32 x 32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(path)
    return path


@pytest.fixture
def colours() -> type[ColourEmbedder]:
    return ColourEmbedder


@pytest.fixture
def embedder() -> ColourEmbedder:
    return ColourEmbedder()


@pytest.fixture
def drawn() -> Callable[[Path, int], Path]:
    return draw


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Twelve pictures of three classes, in train and val."""
    for number in range(12):
        split, label = ("val" if number % 4 == 3 else "train"), "abc"[number // 4]
        draw(tmp_path / "photos" / split / label / f"{number:02d}.png", number)
    return tmp_path / "photos"

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggtransfer.classification.model import Task, VGGClassifier
from vggtransfer.data.decode import decode_image
from vggtransfer.data.fixed_views import FixedViews, augmentation
from vggtransfer.data.folders import Sample
from vggtransfer.data.scan import check_pictures
from vggtransfer.data.transforms import sample_seed
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.features.cached_pictures import CachedPictures
from vggtransfer.features.frozen_prefix import FrozenPrefix


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    for number in range(3):
        small = noise.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(small).resize((240, 200)).save(tmp_path / f"{number}.png")
    return [Sample(tmp_path / f"{number}.png", number) for number in range(3)]


def cached(samples: list[Sample], views: FixedViews, layers: int) -> tuple[CachedPictures, FrozenPrefix]:
    torch.manual_seed(0)
    encoder = VGGEncoder("vgg11", weights=None, layers=["pool5"])
    model = VGGClassifier(encoder, Task(("a", "b", "c"), views.image_size, 1.0, "linear", 0.0))
    prefix = FrozenPrefix(model, layers, device=torch.device("cpu"), compute_type=torch.float32)
    hashes = check_pictures(samples).hashes
    pictures = CachedPictures(samples, hashes=hashes, views=views, prefix=prefix, storage="fp32", seed=3)
    pictures.fill(on_disk=False, batch_size=4, workers=0, rank=0, processes=1, stopped=lambda: False)
    pictures.open()
    return pictures, prefix


def view(sample: Sample, views: FixedViews, key: int) -> torch.Tensor:
    picture = views(decode_image(sample.path, min_side=views.min_side), key=key)
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("preset", ["none", "mirror"])
def test_maps_are_those_of_the_views(samples: list[Sample], preset: str) -> None:
    views = augmentation(preset, 64)
    assert isinstance(views, FixedViews)
    pictures, prefix = cached(samples, views, 6)
    keys = [(epoch, index) for epoch in range(4) for index in (2, 0, 1)]
    batches = list(pictures.batches([keys[:5], keys[5:]]))
    assert [len(labels) for _, labels, _ in batches] == [5, 7]
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == [index for _, index in keys]
    seen = torch.stack([view(samples[index], views, sample_seed(3, epoch, index)) for epoch, index in keys])
    torch.testing.assert_close(torch.cat([maps for maps, _, _ in batches]), prefix(seen))


def test_crops_are_exact_away_from_the_border(samples: list[Sample]) -> None:
    """relu3_2 of vgg11 sees 18 pixels around each place, which lie 4 pixels apart."""
    views = augmentation("crops", 128)
    assert isinstance(views, FixedViews)
    pictures, prefix = cached(samples, views, 10)
    assert prefix.last == "relu3_2"
    keys = [(epoch, index) for epoch in range(20) for index in range(3)]
    ((maps, _, _),) = pictures.batches([keys])
    seen = torch.stack([view(samples[index], views, sample_seed(3, epoch, index)) for epoch, index in keys])
    expected = prefix(seen)
    assert maps.shape == expected.shape
    inner = slice(7, -7)
    torch.testing.assert_close(maps[..., inner, inner], expected[..., inner, inner], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(maps, expected)
    assert len({tuple(one.flatten()[:50].tolist()) for one in maps[::3]}) > 8  # the crops are different ones


def test_processes_share_the_pictures_whatever_they_find(samples: list[Sample], tmp_path: Path) -> None:
    views = augmentation("mirror", 32)
    assert isinstance(views, FixedViews)
    first, prefix = cached(samples, views, 3)
    hashes = check_pictures(samples).hashes
    for rank in (1, 0):  # the second finds what the first has written
        share = CachedPictures(samples, hashes=hashes, views=views, prefix=prefix, storage="fp32", seed=3)
        share.fill(on_disk=True, batch_size=4, workers=0, rank=rank, processes=2, stopped=lambda: False)
    share.open()
    assert share.on_disk()[0] == 1.0
    assert sum(path.stat().st_size // 34 for path in share.folder.glob("*.keys")) == 6
    keys = [(0, 0), (0, 1), (1, 2)]
    assert torch.equal(next(share.batches([keys]))[0], next(first.batches([keys]))[0])

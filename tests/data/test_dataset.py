from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vggtransfer.data.dataset import PictureDataset, PicturesOrFaults, divide_faults
from vggtransfer.data.folders import Sample
from vggtransfer.data.resampling import Picture
from vggtransfer.data.scan import BadPicture
from vggtransfer.data.transforms import evaluation_transform, sample_seed, train_transform
from vggtransfer.errors import BadImageError, OptionError


class KeepAll:
    """Returns the picture as it is, but for its first pixel, which tells the key."""

    def __call__(self, image: Picture, *, key: int) -> Picture:
        image = image.copy()
        image[0, 0] = [key % 251, key % 241, key % 239]
        return image


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    generator = np.random.default_rng(0)
    made = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (10, 12, 3)).astype(np.uint8)).save(path)
        made.append(Sample(path, number % 2))
    return made


def test_a_sample_is_a_byte_tensor_with_label_and_index(samples: list[Sample]) -> None:
    dataset = PictureDataset(samples, KeepAll(), seed=3)
    assert len(dataset) == 6
    image, label, index = dataset[5]
    assert (image.dtype, image.shape, label, index) == (torch.uint8, (3, 10, 12), 1, 5)
    assert image.is_contiguous()
    expected = np.asarray(Image.open(samples[5].path)).transpose(2, 0, 1)
    np.testing.assert_array_equal(image[:, 1:], expected[:, 1:])
    with pytest.raises(IndexError):
        dataset[6]


def test_later_transforms_take_over_from_their_epoch_on(samples: list[Sample]) -> None:
    later = [(2, evaluation_transform(6)), (5, evaluation_transform(8))]
    dataset = PictureDataset(samples, evaluation_transform(4), seed=0, later=later)
    sides = [dataset[(epoch, 0)][0].shape[-1] for epoch in (0, 1, 2, 4, 5, 99)]
    assert sides == [4, 4, 6, 6, 8, 8]


def test_the_key_is_seed_epoch_and_index(samples: list[Sample]) -> None:
    def first_pixel(seed: int, key: int | tuple[int, int]) -> list[int]:
        pixel: list[int] = PictureDataset(samples, KeepAll(), seed=seed)[key][0][:, 0, 0].tolist()
        return pixel

    for seed, epoch, index in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**40, 300, 5)):
        key = sample_seed(seed, epoch, index)
        assert first_pixel(seed, (epoch, index)) == [key % 251, key % 241, key % 239]
    assert first_pixel(7, 2) == first_pixel(7, (0, 2))
    assert first_pixel(7, 2) != first_pixel(7, (1, 2))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_and_order_change_nothing(samples: list[Sample], workers: int) -> None:
    transform = train_transform("strong", 8)
    alone = PictureDataset(samples, transform, seed=1)
    keys = [(2, 4), (0, 4), (2, 0), (1, 1), (0, 0), (2, 5)]
    expected = {key: alone[key][0] for key in sorted(keys)}
    dataset = PictureDataset(samples, train_transform("strong", 8), seed=1)
    loader = DataLoader(dataset, batch_sampler=[keys[:3], keys[3:]], num_workers=workers)
    seen = 0
    for images, labels, indices in loader:
        for image, label, index in zip(images, labels, indices, strict=True):
            key = keys[seen]
            assert torch.equal(image, expected[key])
            assert (int(label), int(index)) == (key[1] % 2, key[1])
            seen += 1
    assert seen == 6
    assert not torch.equal(expected[(2, 4)], expected[(0, 4)])


def test_the_transform_says_how_small_a_jpeg_may_be(tmp_path: Path) -> None:
    class Shape(KeepAll):
        def __init__(self, min_side: int | None) -> None:
            self.min_side = min_side

    path = tmp_path / "large.jpg"
    Image.fromarray(np.zeros((64, 128, 3), np.uint8)).save(path)
    sample = [Sample(path, 0)]
    assert PictureDataset(sample, KeepAll(), seed=0)[0][0].shape == (3, 64, 128)
    assert PictureDataset(sample, Shape(None), seed=0)[0][0].shape == (3, 64, 128)
    assert PictureDataset(sample, Shape(16), seed=0)[0][0].shape == (3, 16, 32)
    assert PictureDataset(sample, evaluation_transform(16), seed=0)[0][0].shape == (3, 16, 16)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", ["broken.jpg", "two\nlines.jpg"])
def test_a_bad_picture_says_so_in_one_line_from_any_process(
    samples: list[Sample], tmp_path: Path, workers: int, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(samples[0].path.read_bytes()[:-60])
    dataset = PictureDataset([*samples[:2], Sample(path, 0)], evaluation_transform(8), seed=0)
    error = None
    try:
        list(DataLoader(dataset, batch_size=3, num_workers=workers))
    except BadImageError as caught:
        error = caught.with_traceback(None)  # which would keep the loader, and so its processes, alive
    shown = str(path).replace("\n", " ")
    assert str(error).startswith(f"{shown}: cannot be decoded as PNG: ")
    assert "\n" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, BadImageError)
    assert str(again) == str(error)


def test_faults_are_told_beside_the_good_pictures(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.jpg"
    path.write_bytes(b"no picture")
    pictures = PictureDataset([samples[0], Sample(path, 0), samples[1]], evaluation_transform(8), seed=0)
    faults = PicturesOrFaults(pictures)
    with pytest.raises(BadImageError) as caught:
        pictures[1]
    reason = str(caught.value).removeprefix(str(path).replace("\n", " ") + ": ")
    good, bad = divide_faults([faults[(0, 0)], faults[(0, 1)], faults[2]])
    assert bad == [BadPicture(path, reason)]
    assert good is not None
    assert torch.equal(good[0], torch.stack([pictures[0][0], pictures[2][0]]))
    assert [each.tolist() for each in good[1:]] == [[0, 1], [0, 2]]
    assert divide_faults([faults[1]]) == (None, bad)


def test_data_sets_pickle(samples: list[Sample]) -> None:
    dataset = PictureDataset(samples, evaluation_transform(8), seed=5)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3][0], dataset[3][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_does_not_fit_is_one_line(samples: list[Sample], tmp_path: Path, workers: int) -> None:
    recipe = tmp_path / "crop.yaml"
    recipe.write_text("- RandomCrop: {height: 500, width: 500}\n")
    dataset = PictureDataset(samples, train_transform(recipe, 32), seed=0)
    with pytest.raises(OptionError, match=r"crop\.yaml: cannot be applied to a 12 x 10 picture") as caught:
        list(DataLoader(dataset, batch_size=3, num_workers=workers))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)

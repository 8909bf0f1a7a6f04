from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from vggtransfer.data.flowers.blooms import PAINTERS
from vggtransfer.data.flowers.painting import Canvas, Petal, gradient, outline, paint_petal
from vggtransfer.data.flowers.parts import Pose
from vggtransfer.data.folders import read_folders
from vggtransfer.data.synthetic import SPECIES, draw_flower, write_synthetic_flowers
from vggtransfer.errors import OptionError

REPOSITORY = Path(__file__).parents[2]


def digest(seeds: range, size: int) -> str:
    arrays = (array for species in SPECIES for seed in seeds for array in draw_flower(species, size=size, seed=seed))
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


class TestDrawFlower:
    def test_species(self):
        assert len(SPECIES) == 8
        assert list(SPECIES) == sorted(SPECIES)  # the order a folder reader gives the classes

    @pytest.mark.parametrize("species", SPECIES)
    def test_picture_and_mask(self, species):
        label = SPECIES.index(species) + 1
        for seed in range(6):
            image, mask = draw_flower(species, size=64, seed=seed)
            assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
            assert (mask.shape, mask.dtype) == ((64, 64), np.uint8)
            assert set(np.unique(mask)) == {0, label}
            assert 0.02 < (mask > 0).mean() < 0.9
            assert image.std() > 10

    @pytest.mark.parametrize("size", [16, 33, 200])
    def test_any_size(self, size):
        image, mask = draw_flower("poppy", size=size, seed=2**63)
        assert image.shape == (size, size, 3)
        assert mask.shape == (size, size)

    def test_size_changes_the_resolution_not_the_flower(self):
        small, large = (draw_flower("tulip", size=size, seed=3)[1] > 0 for size in (32, 128))
        enlarged = small.repeat(4, 0).repeat(4, 1)
        assert (enlarged & large).sum() / (enlarged | large).sum() > 0.8

    def test_seeds_and_species_give_different_pictures(self):
        pictures = {draw_flower(species, size=16, seed=seed)[0].tobytes() for species in SPECIES for seed in range(10)}
        assert len(pictures) == 80

    def test_same_bytes_in_another_process_without_torch(self):
        code = (
            "import hashlib, random, sys, cv2, numpy\n"
            "cv2.setNumThreads(1); numpy.random.seed(5); random.seed(5)\n"
            "from vggtransfer.data.synthetic import SPECIES, draw_flower\n"
            "arrays = [a for s in SPECIES for k in range(3) for a in draw_flower(s, size=48, seed=k)]\n"
            "print(hashlib.sha256(b''.join(a.tobytes() for a in arrays)).hexdigest(), 'torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": "7"},
            check=True,
        )
        assert done.stdout.split() == [digest(range(3), 48), "False"]

    def test_unknown_species(self):
        with pytest.raises(OptionError, match=r"species must be one of bluebell, .*, tulip, not 'dandelion'"):
            draw_flower("dandelion", size=64, seed=0)

    def test_too_small(self):
        with pytest.raises(OptionError, match="size must be at least 16 pixels, not 8"):
            draw_flower("rose", size=8, seed=0)


class TestPainting:
    @pytest.mark.parametrize("species", [species for species in SPECIES if species != "bluebell"])
    def test_the_mask_is_what_was_painted(self, species):
        canvas = Canvas(np.full((256, 256, 3), -1, np.float32), (0.0, -1.0))
        pose = Pose(centre=(0.5, 0.5), radius=0.35, tilt=0.8)
        PAINTERS[species](canvas, np.random.default_rng(0), pose, np.random.default_rng(1))
        painted = canvas.image.min(2) > -0.5
        flower = canvas.flower > 0.5
        assert flower.mean() > 0.08
        assert (painted & flower).sum() / (painted | flower).sum() > 0.97

    def test_leaves_cover_flowers_in_the_mask(self):
        canvas = Canvas(np.zeros((64, 64, 3), np.float32), (0.0, -1.0))
        petal = Petal(outline(0.5, 0.2, 0.2), gradient((0, [1, 0, 0]), (1, [1, 0, 0])))
        paint_petal(canvas, petal, (0.1, 0.5), (0.8, 0.0))
        whole = canvas.flower.sum()
        paint_petal(canvas, petal, (0.5, 0.5), (0.4, 0.0), flower=False)
        assert 0.4 * whole < canvas.flower.sum() < 0.85 * whole

    def test_a_petal_lies_where_it_should(self):
        canvas = Canvas(np.zeros((100, 100, 3), np.float32), (0.0, -1.0))
        petal = Petal(outline(0.25, 0.01, 0.01), gradient((0, [1, 1, 1]), (1, [1, 1, 1])))
        paint_petal(canvas, petal, (0.2, 0.5), (0.6, 0.0))  # 0.6 long, 2 * 0.25 * 0.6 wide
        rows, columns = np.nonzero(canvas.flower > 0.5)
        assert (rows.min(), rows.max()) == (35, 64)
        assert (columns.min(), columns.max()) == (20, 79)

    def test_outside_of_the_picture_nothing_happens(self):
        canvas = Canvas(np.zeros((32, 32, 3), np.float32), (0.0, -1.0))
        petal = Petal(outline(0.3, 0.5, 0.5), gradient((0, [1, 1, 1]), (1, [1, 1, 1])))
        paint_petal(canvas, petal, (2.0, 2.0), (0.5, 0.0))
        paint_petal(canvas, petal, (0.5, 0.5), (0.0, 0.0))
        assert not canvas.image.any()


class TestWriteSyntheticFlowers:
    def test_layout(self, tmp_path):
        steps: list[tuple[int, int]] = []
        directory = write_synthetic_flowers(
            tmp_path / "new" / "flowers",
            train=3,
            val=2,
            test=1,
            image_size=24,
            progress=lambda *step: steps.append(step),
        )
        assert directory == tmp_path / "new" / "flowers"
        assert steps == [(n, 48) for n in range(1, 49)]
        for split, count in {"train": 3, "val": 2, "test": 1}.items():
            for label, species in enumerate(SPECIES, start=1):
                pictures = sorted((directory / split / species).iterdir())
                masks = sorted((directory / "masks" / split / species).iterdir())
                assert [p.name for p in pictures] == [p.name for p in masks] == [f"{n:04d}.png" for n in range(count)]
                with Image.open(pictures[0]) as picture, Image.open(masks[0]) as mask:
                    assert (picture.mode, picture.size) == ("RGB", (24, 24))
                    assert (mask.mode, mask.size) == ("L", (24, 24))
                    assert set(np.unique(mask)) <= {0, label}
        made = json.loads((directory / "synthetic-flowers.json").read_text())
        assert made["mask_values"]["background"] == 0
        assert made["mask_values"]["tulip"] == 8

    def test_is_read_as_a_data_set(self, tmp_path):
        write_synthetic_flowers(tmp_path, train=3, val=2, test=1, image_size=16)
        folders = read_folders(tmp_path)
        assert folders.classes == SPECIES
        assert (len(folders.train), len(folders.val), len(folders.test)) == (24, 16, 8)

    def test_no_picture_is_there_twice(self, tmp_path):
        write_synthetic_flowers(tmp_path, train=4, val=4, test=4, image_size=16)
        pictures = [p.read_bytes() for split in ("train", "val", "test") for p in (tmp_path / split).rglob("*.png")]
        assert len(set(pictures)) == len(pictures) == 96

    def test_writing_again_gives_the_same_bytes_and_leaves_nothing_over(self, tmp_path):
        first = contents(write_synthetic_flowers(tmp_path / "a", train=2, val=1, test=1, image_size=16))
        other = write_synthetic_flowers(tmp_path / "b", train=3, val=2, test=0, image_size=20, seed=9)
        (other / "notes.txt").write_text("mine")
        (other / "train" / "rose" / "my rose.png").write_bytes(b"mine")
        again = contents(write_synthetic_flowers(other, train=2, val=1, test=1, image_size=16))
        assert again.pop("notes.txt") == again.pop("train/rose/my rose.png") == b"mine"
        assert again == first
        write_synthetic_flowers(other, train=1, val=0, test=0, image_size=16)
        assert not (other / "test").exists()

    def test_more_pictures_of_the_same_seed_begin_with_the_same(self, tmp_path):
        few = contents(write_synthetic_flowers(tmp_path / "a", train=1, val=1, test=0, image_size=16, seed=4))
        many = contents(write_synthetic_flowers(tmp_path / "b", train=2, val=1, test=1, image_size=16, seed=4))
        del few["synthetic-flowers.json"]
        assert few.items() <= many.items()

    def test_refuses_what_is_not_its_own(self, tmp_path):
        (tmp_path / "holiday.jpg").write_bytes(b"")
        with pytest.raises(OptionError, match="is not empty and holds no synthetic flowers"):
            write_synthetic_flowers(tmp_path, train=1, val=0, test=0, image_size=16)
        with pytest.raises(OptionError, match=r"holiday.jpg is a file; give a new or empty folder"):
            write_synthetic_flowers(tmp_path / "holiday.jpg", train=1, val=0, test=0, image_size=16)
        with pytest.raises(OptionError, match="cannot be made: Not a directory"):
            write_synthetic_flowers(tmp_path / "holiday.jpg" / "x", train=1, val=0, test=0, image_size=16)
        assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"train": -1}, "train must not be negative, but is -1"),
            ({"image_size": 8}, "image_size must be at least 16 pixels, not 8"),
            ({"seed": -3}, "seed must not be negative, but is -3"),
        ],
    )
    def test_values_out_of_range(self, tmp_path, option, message):
        with pytest.raises(OptionError, match=message):
            write_synthetic_flowers(tmp_path / "flowers", **option)
        assert not (tmp_path / "flowers").exists()


def test_colours_alone_do_not_tell_the_species():
    def histograms(seeds: range) -> tuple[np.ndarray, list[int]]:
        features, labels = [], []
        for label, species in enumerate(SPECIES):
            for seed in seeds:
                bins = draw_flower(species, size=48, seed=seed)[0].reshape(-1, 3) // 32 @ [64, 8, 1]
                features.append(np.sqrt(np.bincount(bins, minlength=512) / len(bins)))
                labels.append(label)
        return np.array(features), labels

    model = LogisticRegression(C=10, max_iter=3000).fit(*histograms(range(18)))
    score = model.score(*histograms(range(1000, 1010)))
    assert 0.2 < score < 0.75

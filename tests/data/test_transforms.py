from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vggtransfer.data import augmentation_objects
from vggtransfer.data.augmentation_lists import PRESETS
from vggtransfer.data.resampling import resize
from vggtransfer.data.transforms import Transform, evaluation_transform, sample_seed, train_transform
from vggtransfer.errors import OptionError

REPOSITORY = Path(__file__).parents[2]
AUGMENTING = ["light", "standard", "strong"]

# Transforms that cannot do without certain arguments. Those missing here need masks, boxes or other pictures.
NEEDED: dict[str, dict[str, object]] = {
    "Crop": {"x_max": 30, "y_max": 20},
    "CropAndPad": {"percent": 0.1},
    "GridElasticDeform": {"num_grid_xy": [3, 3], "magnitude": 4},
    "LongestMaxSize": {"max_size": 50},
    "RandomSizedCrop": {"min_max_height": [20, 40]},
    "SmallestMaxSize": {"max_size": 50},
}
UNUSABLE = {
    "BBoxSafeRandomCrop",
    "ConstrainedCoarseDropout",
    "CropNonEmptyMaskIfExists",
    "FDA",
    "HistogramMatching",
    "MaskDropout",
    "Mosaic",
    "OverlayElements",
    "PixelDistributionAdaptation",
    "RandomCropNearBBox",
    "RandomSizedBBoxSafeCrop",
    "TextImage",
    "ToRGB",
}
VERY_SLOW = {"PiecewiseAffine"}


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture, read-only as those that come from a decoder may be."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    image.setflags(write=False)
    return image


def scramble(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    cv2.setRNGSeed(seed)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


class TestSampleSeed:
    def test_known_values_never_change(self):
        # Resumed runs and published scores depend on them.
        assert sample_seed(0, 0, 0) == 2891389769238885931
        assert sample_seed(1, 2, 3) == 13041116711478803063

    def test_is_different_for_every_sample_and_every_epoch(self):
        keys = {sample_seed(s, e, i) for s in range(3) for e in range(10) for i in range(2000)}
        assert len(keys) == 3 * 10 * 2000
        assert all(0 <= key < 2**64 for key in keys)

    def test_takes_any_integers(self):
        assert sample_seed(-1, 0, 0) != sample_seed(1, 0, 0)
        assert 0 <= sample_seed(2**100, 0, 0) < 2**64


class TestResize:
    def test_shrinking_is_the_mean_of_areas(self):
        image = np.zeros((4, 4, 3), np.uint8)
        image[:2, :2], image[:2, 2:] = [[[40, 0, 0], [0, 80, 0]], [[0, 0, 120], [0, 0, 0]]], 200
        expected = [[[10, 20, 30], [200, 200, 200]], [[0, 0, 0], [0, 0, 0]]]
        np.testing.assert_array_equal(resize(image, 2, 2), expected)

    @pytest.mark.parametrize(("rows", "columns"), [(64, 512), (512, 64), (300, 300)])
    def test_fine_stripes_become_grey_even_if_the_other_axis_grows(self, rows, columns):
        stripes = np.zeros((rows, columns, 3), np.uint8)
        stripes[(slice(None), slice(1, None, 2)) if columns >= rows else slice(1, None, 2)] = 255
        result = resize(stripes, 100, 100)
        assert result.shape == (100, 100, 3)
        assert np.abs(result.astype(int) - 127).max() <= 45  # 1/3 of the contrast; sampling would keep 127

    def test_the_same_size_is_left_alone(self):
        np.testing.assert_array_equal(resize(picture(), 60, 80), picture())


class TestEvaluation:
    def test_takes_the_central_square(self):
        image = np.zeros((4, 10, 3), np.uint8)
        image[:, 3:7] = 200
        np.testing.assert_array_equal(evaluation_transform(4)(image, key=0), np.full((4, 4, 3), 200))

    def test_crop_fraction_cuts_a_margin_off(self):
        image = np.full((64, 64, 3), 50, np.uint8)
        image[8:56, 8:56] = 200
        whole = evaluation_transform(32, crop_fraction=1.0)(image, key=0)
        inner = evaluation_transform(32, crop_fraction=0.75)(image, key=0)
        assert whole[0, 0, 0] == 50
        assert (inner == 200).mean() > 0.8
        assert whole.shape == inner.shape == (32, 32, 3)

    def test_default_crop_fraction(self):
        assert evaluation_transform(224).min_side == 256
        assert evaluation_transform(32).min_side == 32

    def test_is_not_random(self):
        transform = evaluation_transform(32)
        np.testing.assert_array_equal(transform(picture(), key=1), transform(picture(), key=2))

    def test_none_is_the_same(self):
        expected = evaluation_transform(100)(picture(200, 300), key=0)
        np.testing.assert_array_equal(train_transform("none", 100)(picture(200, 300), key=5), expected)

    @pytest.mark.parametrize("crop_fraction", [0, -1, 1.1])
    def test_crop_fraction_out_of_range(self, crop_fraction):
        with pytest.raises(OptionError, match="crop_fraction must be above 0 and at most 1"):
            evaluation_transform(32, crop_fraction=crop_fraction)

    def test_image_size_out_of_range(self):
        with pytest.raises(OptionError, match="image_size must be at least 1, not 0"):
            evaluation_transform(0)


class TestPresets:
    @pytest.mark.parametrize("preset", list(PRESETS))
    @pytest.mark.parametrize("shape", [(60, 80), (32, 32), (500, 20), (3, 2000), (1, 1)])
    def test_any_picture_comes_out_square(self, preset, shape):
        transform = train_transform(preset, 32)
        image = picture(*shape)
        before = image.copy()
        for key in range(20):
            result = transform(image, key=key)
            assert result.shape == (32, 32, 3)
            assert result.dtype == np.uint8
            assert result.flags.c_contiguous
            assert not np.shares_memory(result, image)
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize("preset", AUGMENTING)
    def test_keys_give_different_pictures(self, preset):
        transform = train_transform(preset, 32)
        assert len({transform(picture(), key=key).tobytes() for key in range(50)}) == 50

    @pytest.mark.parametrize("preset", AUGMENTING)
    def test_a_crop_of_stripes_has_no_moire(self, preset):
        stripes = np.zeros((512, 512, 3), np.uint8)
        stripes[:, ::2] = 255
        geometry = [step for step in PRESETS[preset] if "ColorJitter" not in step and "CoarseDropout" not in step]
        transform = Transform(preset, image_size=64, steps=geometry)
        for key in range(20):
            assert transform(stripes, key=key).std() < 30  # nearest or plain linear interpolation gives 60 to 127

    def test_min_side_leaves_every_crop_its_pixels(self):
        assert evaluation_transform(224, crop_fraction=1.0).min_side == 224
        for preset, smallest in (("light", 0.5), ("standard", 0.35), ("strong", 0.2)):
            side = train_transform(preset, 224).min_side
            assert side is not None
            assert side * (smallest * 3 / 4) ** 0.5 >= 224
            assert (side - 1) * (smallest * 3 / 4) ** 0.5 < 224

    def test_cutout_erases_one_rectangle_of_every_other_picture(self):
        white = np.full((32, 32, 3), 255, np.uint8)
        transform = train_transform("cutout", 32)
        holes = [(transform(white, key=key) != 255).all(axis=2) for key in range(200)]
        holes = [hole for hole in holes if hole.any()]
        assert 70 < len(holes) < 130
        for hole in holes:
            rows, columns = hole.any(axis=1).sum(), hole.any(axis=0).sum()
            assert hole.sum() == rows * columns
            assert 7 <= min(rows, columns) <= max(rows, columns) <= 13

    def test_standard_keeps_colours_recognisable(self):
        red = np.zeros((64, 64, 3), np.uint8)
        red[:] = (200, 30, 40)
        transform = train_transform("standard", 32)
        for key in range(50):
            mean = transform(red, key=key).mean((0, 1))
            assert mean[0] > 2 * max(mean[1], mean[2])

    @pytest.mark.parametrize(
        ("preset", "message"),
        [
            ("standrd", "augmentation 'standrd' is neither a preset .* nor a YAML file .did you mean 'standard'"),
            ("nowhere/list.yaml", "nowhere/list.yaml: no such file"),
        ],
    )
    def test_unknown(self, preset, message):
        with pytest.raises(OptionError, match=message):
            train_transform(preset, 32)


class TestRandomnessIsTheKeyOnly:
    @pytest.mark.parametrize("name", sorted(set(augmentation_objects._transforms()) - UNUSABLE - VERY_SLOW))
    def test_every_usable_transform(self, name):
        steps = [{name: {"p": 1.0, **NEEDED.get(name, {})}}]
        first, second = (Transform("list", image_size=40, steps=steps) for _ in range(2))
        image = picture()
        before = image.copy()
        scramble(1)
        expected = {key: first(image, key=key) for key in (0, 1, 2)}
        first(picture(seed=9), key=77)
        scramble(2)
        for key in (2, 0, 1):
            np.testing.assert_array_equal(first(image, key=key), expected[key])
            np.testing.assert_array_equal(second(image, key=key), expected[key])
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize("preset", AUGMENTING)
    def test_order_global_seeds_and_pickling(self, preset):
        transform = train_transform(preset, 32)
        scramble(1)
        expected = {key: transform(picture(), key=key) for key in range(40)}
        scramble(2)
        copy = pickle.loads(pickle.dumps(transform))
        for key in reversed(range(40)):
            np.testing.assert_array_equal(copy(picture(), key=key), expected[key])
        assert copy.min_side == transform.min_side
        assert repr(copy) == repr(transform)

    def test_transforms_of_a_list_are_independent(self):
        # albumentations' own set_random_seed would make both flips happen together, always.
        transform = Transform("list", image_size=8, steps=["HorizontalFlip", "VerticalFlip"])
        image = picture(8, 8)
        variants = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
        counts = [0, 0, 0, 0]
        for key in range(400):
            result = transform(image, key=sample_seed(0, 0, key))
            counts[[np.array_equal(result, variant) for variant in variants].index(True)] += 1
        assert min(counts) > 60  # 100 expected, standard deviation 9

    def test_data_loader_workers(self, tmp_path):
        script = tmp_path / "load.py"
        script.write_text(LOADER_SCRIPT)
        transform = train_transform("strong", 24)
        image = picture()
        np.save(tmp_path / "image.npy", image)
        (tmp_path / "transform.pickle").write_bytes(pickle.dumps(transform))
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore:This DataLoader will create", str(script), str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        expected = [
            hashlib.sha256(transform(image, key=sample_seed(3, 1, index)).tobytes()).hexdigest() for index in range(24)
        ]
        results = json.loads(done.stdout)
        assert set(results) == {"0", "fork 1", "fork 3", "spawn 2"}
        for setting, digests in results.items():
            assert digests == expected, setting


LOADER_SCRIPT = """
import hashlib, json, pickle, random, sys
from pathlib import Path
import numpy as np

class Pictures:
    def __init__(self, folder):
        self.image = np.load(folder / "image.npy")
        self.transform = pickle.loads((folder / "transform.pickle").read_bytes())
    def __len__(self):
        return 24
    def __getitem__(self, index):
        from vggtransfer.data.transforms import sample_seed
        digest = hashlib.sha256(self.transform(self.image, key=sample_seed(3, 1, index)).tobytes()).hexdigest()
        return index, digest

def as_it_is(batch):
    return batch

if __name__ == "__main__":
    import cv2, torch
    from torch.utils.data import DataLoader
    folder = Path(sys.argv[1])
    # Starts OpenCV's threads, which do not survive a fork.
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 5)
    results = {}
    for method, workers in [(None, 0), ("fork", 1), ("fork", 3), ("spawn", 2)]:
        random.seed(workers); np.random.seed(workers); torch.manual_seed(workers)
        order = torch.randperm(24).tolist()
        loader = DataLoader(Pictures(folder), batch_size=3, sampler=order, num_workers=workers,
                            multiprocessing_context=method, collate_fn=as_it_is)
        pairs = sorted(pair for batch in loader for pair in batch)
        results[f"{method} {workers}" if workers else "0"] = [digest for _, digest in pairs]
    print(json.dumps(results))
"""


def test_import_is_silent_and_offline():
    code = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import vggtransfer.data.transforms"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=REPOSITORY,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class TestYamlLists:
    def test_means_what_albumentations_means(self, tmp_path):
        path = write(tmp_path, "- HorizontalFlip: {p: 1.0}\n- VerticalFlip:\n    p: 1\n- NoOp\n- Transpose: {p: 0}\n")
        image = picture(32, 32)
        np.testing.assert_array_equal(train_transform(path, 32)(image, key=0), image[::-1, ::-1])
        np.testing.assert_array_equal(train_transform(str(path), 32)(image, key=0), image[::-1, ::-1])

    @pytest.mark.parametrize(
        "text",
        [
            "- HorizontalFlip",
            "- Resize: {height: 50, width: 10}",
            "- RandomCrop: {height: 7, width: 9}",
            "- RandomResizedCrop",
            "- RandomCrop",
            "- Pad: {padding: 4}\n- RandomCrop: {}",
            "- RandomScale: {scale_limit: 0.5, p: 1}",
            "[]",
        ],
    )
    def test_the_result_has_image_size_all_the_same(self, tmp_path, text):
        transform = train_transform(write(tmp_path, text), 32)
        assert transform.min_side is None or text == "[]"
        for shape in ((60, 80), (32, 32)):
            assert transform(picture(*shape), key=3).shape == (32, 32, 3)

    def test_a_preset_written_as_yaml_is_that_preset(self, tmp_path):
        path = tmp_path / "strong.yml"
        path.write_text(json.dumps(PRESETS["strong"]))
        mine, preset = train_transform(path, 32), train_transform("strong", 32)
        for key in range(20):
            np.testing.assert_array_equal(mine(picture(), key=key), preset(picture(), key=key))

    def test_given_interpolation_is_kept(self, tmp_path):
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        nearest = write(tmp_path, "- RandomResizedCrop: {scale: [1, 1], ratio: [1, 1], interpolation: 0}")
        assert set(np.unique(train_transform(nearest, 32)(stripes, key=0))) <= {0, 255}
        default = write(tmp_path, "- RandomResizedCrop: {scale: [1, 1], ratio: [1, 1]}")
        assert set(np.unique(train_transform(default, 32)(stripes, key=0))) <= {127, 128}
        default = write(tmp_path, "- SmallestMaxSize: {max_size: 32}")
        assert set(np.unique(train_transform(default, 32)(stripes, key=0))) <= {127, 128}

    def test_groups_nest(self, tmp_path):
        text = """
        - OneOf:
            p: 1.0
            transforms:
              - HorizontalFlip: {p: 1}
              - Sequential: {p: 1, transforms: [VerticalFlip: {p: 1}, {HorizontalFlip: {p: 1}}]}
        - SomeOf: {n: 1, p: 1, transforms: [{InvertImg: {p: 1}}, NoOp]}
        - RandomOrder: {n: 2, transforms: [NoOp, NoOp]}
        - OneOf: [NoOp, NoOp]
        """
        transform = train_transform(write(tmp_path, text), 16)
        image = picture(16, 16)
        flips = [image[:, ::-1], image[::-1, ::-1]]
        wanted = {array.tobytes() for flip in flips for array in (flip, 255 - flip)}
        assert {transform(image, key=key).tobytes() for key in range(50)} == wanted

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- HorizontalFlp", r"entry 1 \(HorizontalFlp\): not a transform .* \(did you mean 'HorizontalFlip'\?\)"),
            (
                "- NoOp\n- RandomCrop: {hight: 3}",
                r"entry 2 \(RandomCrop\): no argument 'hight' \(did you mean 'height'",
            ),
            ("- HorizontalFlip: {p: 2}", r"entry 1 \(HorizontalFlip\): p: .*less than or equal to 1"),
            ("- HorizontalFlip: {p: often}", r"p: .*valid number"),
            ("- HorizontalFlip: {strict: true}", "no argument 'strict'"),
            ("- HorizontalFlip: 0.5", "arguments are given as 'name: value' pairs, not as 0.5"),
            ("- CropAndPad", "Both px and percent parameters cannot be None"),
            ("- Normalize", "leave it out; .*the encoder normalises"),
            ("- ToTensorV2", "leave it out"),
            ("- Lambda", "not a transform"),
            ("- BasicTransform", "not a transform"),
            ("- Compose", "not a transform"),
            ("- os.system", "not a transform"),
            ("- CenterCrop3D", r"not a transform .* \(did you mean 'CenterCrop'\?\)"),
            ("- MaskDropout", "needs more than the picture itself .mask"),
            ("- FDA", "needs more than the picture itself"),
            ("- ToGray: {num_output_channels: 1}", "must keep 8-bit RGB pictures, but gives uint8"),
            ("- OneOf: {transforms: []}", r"\(OneOf\): needs 'transforms'"),
            ("- OneOf: {p: 0.5}", r"\(OneOf\): needs 'transforms'"),
            ("- OneOf: {p: 1.5, transforms: [NoOp]}", "p must be a probability from 0 to 1, not 1.5"),
            ("- OneOf: {prob: 1, transforms: [NoOp]}", "no argument 'prob'"),
            ("- OneOf: [NoOp: {p: 0}]", "at least one of its transforms needs a p above 0"),
            ("- SomeOf: {n: 3, transforms: [NoOp]}", "`n` is greater than number of transforms"),
            ("- SomeOf: {n: 0, transforms: [NoOp]}", "n must be a whole number from 1 on, not 0"),
            ("- OneOf: [NoOp, Blurr]", r"entry 1 \(OneOf\): entry 2 \(Blurr\): .*did you mean 'Blur'"),
            ("- HorizontalFlip: {p: 0.5, p: 0.6}", "line 1: key 'p' is already given in line 1"),
            ("- NoOp:\n- Blur:\n    p: 1\n    p: 1\n", "line 4: key 'p' is already given in line 3"),
            (
                "- HorizontalFlip: {p: 1}\n  VerticalFlip: {p: 1}",
                "one transform per entry.*HorizontalFlip, VerticalFlip",
            ),
            ("- OneOf: &list [OneOf: *list]", "the list contains itself"),
            ("- 3", "must be a transform's name or"),
            ("- [NoOp]", "must be a transform's name or"),
            ("HorizontalFlip: {p: 0.5}", "must hold a YAML list of transforms .*, not a dict"),
            ("", "must hold a YAML list of transforms .*, not nothing"),
            ("- NoOp: {p: 1", "line 1: "),
            ("- !!python/object/apply:os.getcwd []", "line 1: could not determine a constructor"),
        ],
    )
    def test_mistakes_are_errors_in_one_line(self, tmp_path, text, message):
        path = write(tmp_path, text)
        with pytest.raises(OptionError, match=message) as caught:
            train_transform(path, 32)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)

    def test_not_text(self, tmp_path):
        path = tmp_path / "list.yaml"
        path.write_bytes(b"\xff\xfe\x00\x01")
        with pytest.raises(OptionError, match="not a text file in UTF-8"):
            train_transform(path, 32)
        with pytest.raises(OptionError, match="Is a directory"):
            train_transform(tmp_path, 32) if tmp_path.is_file() else train_transform(make_folder(tmp_path), 32)

    def test_a_list_that_does_not_suit_a_picture(self, tmp_path):
        path = write(tmp_path, "- RandomCrop: {height: 100, width: 100}")
        transform = train_transform(path, 32)
        with pytest.raises(OptionError, match=r"mine.yaml: cannot be applied to a 80 x 60 picture: .*[Cc]rop"):
            transform(picture(), key=0)
        pickle.loads(pickle.dumps(transform))


def make_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    return folder

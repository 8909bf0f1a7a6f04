from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import validate_data

from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import BadImageError, InputError, OptionError, WeightsError
from vggtransfer.features.pooling import PoolName, pool_maps
from vggtransfer.features.transformer import VGGFeatures


def small(**options: Any) -> VGGFeatures:
    defaults = {"layer": "pool2", "image_size": 32, "precision": "fp32", "device": "cpu", "workers": 1}
    return VGGFeatures("vgg16_bn_x0_25", **defaults | options)


@pytest.fixture
def pixels() -> np.ndarray:
    """uint8 [6, 40, 44, 3]: three dark pictures, three bright ones."""
    noise = np.random.default_rng(0).integers(0, 100, (6, 40, 44, 3))
    noise[3:] += 150
    return noise.astype(np.uint8)


LABELS = ["dark"] * 3 + ["bright"] * 3


def expected_rows(pixels: np.ndarray, layer: str = "pool2", pool: PoolName = "gap") -> np.ndarray:
    transform = evaluation_transform(32)
    squares = np.stack([transform(picture, key=0) for picture in pixels])
    encoder = VGGEncoder("vgg16_bn_x0_25").eval()
    with torch.inference_mode():
        maps = encoder.features(torch.from_numpy(squares).permute(0, 3, 1, 2) / 255, layers=[layer])[layer]
        return pool_maps(maps, pool).flatten(1).numpy()


@pytest.mark.parametrize("pool", ["gap", "max", "gem", "none"])
def test_rows_are_what_the_encoder_computes(pixels: np.ndarray, pool: PoolName) -> None:
    transformer = small(pool=pool, batch_size=4)
    rows = transformer.fit_transform(pixels)
    expected = expected_rows(pixels, pool=pool)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    names = transformer.get_feature_names_out()
    assert len(names) == rows.shape[1]
    assert names[1] == "pool2_1"


def test_all_that_pictures_can_be(pixels: np.ndarray, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    images = [Image.fromarray(picture) for picture in pixels]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    expected = small().transform(pixels)
    for same in (
        paths,
        tuple(map(str, paths)),
        np.array(list(map(str, paths))),
        np.array(paths, dtype=object),
        np.array(list(map(str, paths)))[:, None],
        images,
        list(pixels),
        [paths[0], images[1], *pixels[2:]],
        pixels.transpose(0, 3, 1, 2),
        pixels / 255,
        (pixels / 255).astype(np.float32),
        torch.from_numpy(pixels),
    ):
        np.testing.assert_allclose(small().transform(same), expected, rtol=1e-6)


def test_16_bit_grey_is_not_clipped(pixels: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(pixels[0, ..., 0].astype(np.uint16) * 257)
    image.save(tmp_path / "deep.png")
    assert image.mode == "I;16"
    np.testing.assert_allclose(small().transform([image]), small().transform([tmp_path / "deep.png"]), rtol=1e-6)


def test_transparency_is_white(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels[0]).convert("RGBA")
    image.putalpha(0)
    np.testing.assert_allclose(
        small().transform([image]), small().transform([np.full((40, 44, 3), 255, np.uint8)]), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("one.png", "X is a single str; put it into a list"),
        ([], "X holds no picture"),
        (np.empty((0, 8, 8, 3)), "X holds no picture"),
        (np.zeros((40, 3)), r"X has shape \[40, 3\] and type float64; give paths, PIL images"),
        (np.zeros((4, 8, 8)), r"X has shape \[4, 8, 8\]"),
        (np.zeros(5), r"X has shape \[5\]"),
        (np.zeros((2, 8, 8, 4)), r"a picture has shape \[8, 8, 4\]"),
        ([np.zeros((8, 8))], r"a picture has shape \[8, 8\]"),
        (np.full((1, 8, 8, 3), 255.0), r"must lie in \[0, 1\], got \[255, 255\]"),
        (np.full((1, 8, 8, 3), np.nan), r"must lie in \[0, 1\], got \[nan"),
        (np.zeros((1, 8, 8, 3), dtype=np.int64), "a picture has type int64"),
    ],
)
def test_what_pictures_cannot_be(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small().transform(given)


def test_a_bad_file_is_named(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"text")
    with pytest.raises(BadImageError, match=r"bad\.jpg: not a picture"):
        small(batch_size=2).transform([*pixels, tmp_path / "bad.jpg"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "pool7"}, "no layer 'pool7'"),
        ({"layer": "pool5", "image_size": 16}, "image_size=16"),
        ({"pool": "mean"}, "pool='mean'"),
        ({"crop_fraction": 2.0}, "crop_fraction=2.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": 0}, "workers=0"),
        ({"precision": "int4"}, "precision=int4"),
        ({"device": "gpu"}, "device=gpu"),
    ],
)
def test_parameters_are_checked_by_fit(options: dict[str, Any], message: str, pixels: np.ndarray) -> None:
    transformer = small(**options)
    with pytest.raises(OptionError, match=message):
        transformer.fit(pixels)
    with pytest.raises(WeightsError, match="unknown weights"):
        small(weights="imagenet22k").fit(pixels)


def test_a_changed_parameter_counts(pixels: np.ndarray) -> None:
    transformer = small().fit(pixels)
    transformer.set_params(layer="relu1_1", pool="max")
    np.testing.assert_allclose(transformer.transform(pixels), expected_rows(pixels, "relu1_1", "max"), rtol=1e-5)


def test_pickles_and_clones_without_the_weights(pixels: np.ndarray) -> None:
    transformer = small(weights=None).fit(pixels)
    rows = transformer.transform(pixels)
    written = pickle.dumps(transformer)
    assert len(written) < 2000
    np.testing.assert_array_equal(pickle.loads(written).transform(pixels), rows)
    np.testing.assert_array_equal(clone(transformer).transform(pixels), rows)  # random weights are the same again
    assert joblib.hash(transformer) == joblib.hash(clone(transformer))


def test_in_a_pipeline(pixels: np.ndarray) -> None:
    pipeline = make_pipeline(small(), LogisticRegression())
    assert pipeline.fit(pixels, LABELS).score(pixels, LABELS) == 1
    assert list(pipeline[:-1].get_feature_names_out())[:2] == ["pool2_0", "pool2_1"]
    copied = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(copied.predict(pixels), LABELS)


def test_in_a_grid_search_over_layers(pixels: np.ndarray, tmp_path: Path) -> None:
    pipeline = Pipeline([("features", small()), ("classifier", LogisticRegression())], memory=str(tmp_path / "memory"))
    grid = {"features__layer": ["relu1_1", "pool2"], "classifier__C": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(list(pixels), LABELS)
    assert search.best_score_ == 1
    assert len(search.cv_results_["params"]) == 4


@pytest.mark.slow
def test_in_processes_of_joblib(pixels: np.ndarray) -> None:
    pipeline = make_pipeline(small().fit(pixels), LogisticRegression())
    scores = cross_val_score(pipeline, pixels, LABELS, cv=3, n_jobs=2, error_score="raise")
    assert scores.tolist() == [1, 1, 1]


# scikit-learn's own checks feed tables of numbers, which are no pictures; for a transformer whose tags say so they are
# all skipped. So they are run in two ways: on the transformer as it is, but for a tag that lets them be run, where
# those fail that hand it a table; and on one that draws the rows of a table as pictures, where they all have to pass.


class ClaimsTables(VGGFeatures):
    """The transformer as it is, with tags that are wrong."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = False
        return tags


class DrawsTables(ClaimsTables):
    """Draws each row as stripes, one per column."""

    def fit(self, X: Any, y: object = None) -> DrawsTables:
        return super().fit(self._drawn(X, reset=True), y)

    def transform(self, X: Any) -> np.ndarray:
        return super().transform(self._drawn(X, reset=False))

    def _drawn(self, table: Any, *, reset: bool) -> np.ndarray:
        greys = 1 / (1 + np.exp(-validate_data(self, table, reset=reset, dtype=np.float64)))
        stripes = np.repeat(greys, 4, axis=1)[:, None, :, None]
        return stripes.repeat(8, axis=1).repeat(3, axis=3)


def fast(kind: type[VGGFeatures]) -> VGGFeatures:
    return kind(
        "vgg16_bn_x0_25", weights=None, layer="relu1_1", image_size=8, precision="fp32", device="cpu", workers=1
    )


NEEDS_A_TABLE = "hands it a table of numbers and expects features; a table is no picture and is refused"
OTHER_WORDS = "hands it a table that is to be refused, as it is, but in words that are about tables"
EXPECTED_FAILURES = {
    "check_complex_data": OTHER_WORDS,
    "check_dict_unchanged": NEEDS_A_TABLE,
    "check_dont_overwrite_parameters": NEEDS_A_TABLE,
    "check_dtype_object": NEEDS_A_TABLE,
    "check_estimators_dtypes": NEEDS_A_TABLE,
    "check_estimators_empty_data_messages": OTHER_WORDS,
    "check_estimators_fit_returns_self": NEEDS_A_TABLE,
    "check_estimators_nan_inf": OTHER_WORDS,
    "check_estimators_overwrite_params": NEEDS_A_TABLE,
    "check_estimators_pickle": NEEDS_A_TABLE,
    "check_f_contiguous_array_estimator": NEEDS_A_TABLE,
    "check_fit2d_1feature": OTHER_WORDS,
    "check_fit2d_1sample": OTHER_WORDS,
    "check_fit2d_predict1d": NEEDS_A_TABLE,
    "check_fit_check_is_fitted": NEEDS_A_TABLE,
    "check_fit_idempotent": NEEDS_A_TABLE,
    "check_fit_score_takes_y": NEEDS_A_TABLE,
    "check_methods_sample_order_invariance": NEEDS_A_TABLE,
    "check_methods_subset_invariance": NEEDS_A_TABLE,
    "check_n_features_in": NEEDS_A_TABLE,
    "check_n_features_in_after_fitting": NEEDS_A_TABLE,
    "check_pipeline_consistency": NEEDS_A_TABLE,
    "check_positive_only_tag_during_fit": NEEDS_A_TABLE,
    "check_readonly_memmap_input": NEEDS_A_TABLE,
    "check_transformer_data_not_an_array": NEEDS_A_TABLE,
    "check_transformer_general": NEEDS_A_TABLE,
    "check_transformers_unfitted_stateless": NEEDS_A_TABLE,
}


@parametrize_with_checks(
    [fast(ClaimsTables), fast(DrawsTables)],
    expected_failed_checks=lambda estimator: {} if isinstance(estimator, DrawsTables) else EXPECTED_FAILURES,
)
def test_scikit_learns_checks(estimator: VGGFeatures, check: Callable[[VGGFeatures], None]) -> None:
    check(estimator)


def test_its_tags_say_that_it_takes_no_tables() -> None:
    tags = small().__sklearn_tags__()
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.one_d_array
    assert tags.input_tags.string
    assert not tags.requires_fit
    with pytest.warns(SkipTestWarning, match="requires input"):
        check_estimator(small())

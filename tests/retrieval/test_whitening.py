from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vggtransfer.errors import DataError, OptionError
from vggtransfer.retrieval.whitening import (
    learned_whitening,
    load_whitening,
    pairs_of_labels,
    pca_whitening,
    unit_rows,
)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    generator = np.random.default_rng(0)
    return unit_rows((generator.standard_normal((200, 12)) * np.arange(1, 13) + 3).astype(np.float32))


def test_pca_whitening_without_shrinkage_is_that_of_scikit_learn(vectors: np.ndarray) -> None:
    expected = PCA(5, whiten=True, svd_solver="full").fit(vectors.astype(np.float64)).transform(vectors)
    found = pca_whitening(vectors, dimension=5, shrink=0)(vectors)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-4)


def test_shrinkage_goes_from_whitening_to_a_mere_rotation(vectors: np.ndarray) -> None:
    centred = unit_rows(vectors - vectors.mean(axis=0))
    turned = pca_whitening(vectors, shrink=1e6)(vectors)
    np.testing.assert_allclose(turned @ turned.T, centred @ centred.T, atol=1e-4)
    half = pca_whitening(vectors, shrink=1.0).projection
    variances = np.linalg.norm(half, axis=1) ** -2
    exact = np.linalg.eigvalsh(np.cov(vectors.T, bias=True))[::-1]
    np.testing.assert_allclose(variances, exact + exact.mean(), rtol=1e-3)


def test_learned_whitening_makes_differences_within_pairs_round_and_turns_to_the_largest_variance() -> None:
    generator = np.random.default_rng(1)
    places = generator.standard_normal((100, 4)) * (1, 1, 1, 3)
    noise = generator.standard_normal((100, 4)) * (5, 0.1, 1, 1)  # the first number says nothing, the second much
    vectors = np.concatenate([places, places + noise]).astype(np.float32)
    pairs = np.stack([np.arange(100), np.arange(100, 200)], axis=1)
    whitening = learned_whitening(vectors, pairs, shrink=0)
    differences = (vectors[pairs[:, 0]] - vectors[pairs[:, 1]]) @ whitening.projection.T
    np.testing.assert_allclose(differences.T @ differences / 100, np.eye(4), atol=1e-3)
    whole = (vectors - vectors.mean(axis=0)) @ whitening.projection.T
    covariance = whole.T @ whole / 200
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-2)
    assert (np.diff(np.diag(covariance)) < 0).all()
    assert np.abs(whitening.projection[0]).argmax() == 1
    with pytest.raises(OptionError, match="too little for 1 pairs"):
        learned_whitening(vectors, pairs[:1], shrink=0)
    with pytest.raises(OptionError, match="there is none"):
        learned_whitening(vectors, pairs[:0])


def test_pairs_have_the_same_label_and_no_pair_comes_twice() -> None:
    labels = np.array(["a"] * 7 + ["b"] + ["c"] * 2)
    pairs = pairs_of_labels(labels, per_picture=2)
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert np.bincount(pairs[labels[pairs[:, 0]] == "a"].ravel()).tolist() == [4] * 7  # each with two others, twice
    assert set(pairs[-1]) == {8, 9}
    assert pairs_of_labels(np.array(["a", "b"])).shape == (0, 2)


def test_it_survives_being_saved(vectors: np.ndarray, tmp_path: Path) -> None:
    whitening = pca_whitening(vectors, dimension=4)
    whitening.save(tmp_path / "whitening.safetensors")
    loaded = load_whitening(tmp_path / "whitening.safetensors")
    np.testing.assert_array_equal(loaded(vectors), whitening(vectors))
    assert (loaded.digest, loaded.kind, loaded.dimension) == (whitening.digest, "pca", 4)
    assert loaded.digest != pca_whitening(vectors, dimension=5).digest
    content = (tmp_path / "whitening.safetensors").read_bytes()
    for damaged in (content[:-3], b"", content.replace(b"vggtransfer_whitening", b"vggtransfer_whitenING")):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(DataError, match="no whitening of this package"):
            load_whitening(tmp_path / "damaged")


@pytest.mark.parametrize(("options", "message"), [({"dimension": 13}, "12 directions"), ({"shrink": -1}, "shrink=-1")])
def test_impossible_options(vectors: np.ndarray, options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        pca_whitening(vectors, **options)

from __future__ import annotations

import numpy as np
import pytest

from vggtransfer.errors import InputError, OptionError
from vggtransfer.retrieval import exact_search
from vggtransfer.retrieval.exact_search import ExactSearch
from vggtransfer.retrieval.whitening import unit_rows


def exactly(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_finds_what_a_product_in_double_precision_finds(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_search, "_VECTORS", 2000)  # several blocks, the last one with a remainder
    monkeypatch.setattr(exact_search, "_QUERIES", 16)
    generator = np.random.default_rng(0)
    vectors = unit_rows(generator.standard_normal((4321, 32), dtype=np.float32))
    queries = unit_rows(generator.standard_normal((50, 32), dtype=np.float32))
    search = ExactSearch(vectors, precision=precision, device="cpu")
    for k in (1, 10, 300):
        scores, found = search.search(queries, k=k)
        expected_scores, expected = exactly(queries, vectors, k)
        recall = np.mean([len(set(one) & set(other)) / k for one, other in zip(found, expected, strict=True)])
        assert recall >= 0.999
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3 if recall < 1 else 1e-6)
    allowed = np.arange(len(vectors)) % 7 == 3
    scores, found = search.search(queries, k=5, allowed=allowed)
    assert allowed[found].all()
    np.testing.assert_array_equal(found, np.flatnonzero(allowed)[exactly(queries, vectors[allowed], 5)[1]])


def test_vectors_much_alike_are_told_apart() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((3000, 64), dtype=np.float32)
    common = 5 * generator.standard_normal(64, dtype=np.float32)
    vectors[:300] = vectors[0] + 0.1 * vectors[:300]  # hundreds within the spacing of bfloat16
    vectors = unit_rows(vectors + common)
    queries = vectors[::30]
    scores, found = ExactSearch(vectors, precision="bf16", device="cpu").search(queries, k=10)
    expected_scores, expected = exactly(queries, vectors, 10)
    assert expected_scores[:, 9].min() > 0.95
    recall = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, expected, strict=True)])
    assert recall >= 0.999
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_equal_vectors_come_in_their_order_and_k_may_exceed_them() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    vectors.setflags(write=False)
    scores, found = ExactSearch(vectors, device="cpu").search(np.eye(3, dtype=np.float32)[1:2], k=20)
    assert found.tolist() == [[4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11]]
    assert scores[0].tolist() == [1.0] * 4 + [0.0] * 8


def test_no_vectors_no_queries_or_none_allowed_give_nothing() -> None:
    search = ExactSearch(np.eye(3, dtype=np.float32), device="cpu")
    assert search.search(np.empty((0, 3), np.float32), k=2)[1].shape == (0, 2)
    assert search.search(np.eye(3, dtype=np.float32), k=2, allowed=np.zeros(3, bool))[1].shape == (3, 0)
    assert ExactSearch(np.empty((0, 3), np.float32), device="cpu").search(np.eye(3, dtype=np.float32), k=1)[0].size == 0


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match=r"vectors must be float32 \[n, features\], got float64"):
        ExactSearch(np.eye(3))
    search = ExactSearch(np.eye(3, dtype=np.float32), device="cpu")
    with pytest.raises(InputError, match=r"float32 \[queries, 3\]"):
        search.search(np.eye(4, dtype=np.float32), k=1)
    with pytest.raises(OptionError, match="k=0"):
        search.search(np.eye(3, dtype=np.float32), k=0)

"""FAISS indexes of each kind: recall as wanted, rows as given, and files that are what they say."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from vggtransfer.errors import DataError
from vggtransfer.retrieval import index as faiss_index
from vggtransfer.retrieval.exact_neighbours import exact_neighbours
from vggtransfer.retrieval.index_kind import choose_kind
from vggtransfer.retrieval.index_tuning import recall_of, tune
from vggtransfer.retrieval.vector_rows import VectorRows
from vggtransfer.retrieval.whitening import unit_rows

COUNT, DIMENSION = 3000, 32


@pytest.fixture(scope="module")
def vectors():
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((40, DIMENSION), np.float32)
    rows = centres[chance.integers(40, size=COUNT)] + 0.5 * chance.standard_normal((COUNT, DIMENSION), np.float32)
    return VectorRows(unit_rows(rows), None)


def brute_force(vectors, queries, k, allowed=None):
    scores = queries.astype(np.float64) @ vectors.embeddings.T.astype(np.float64)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def test_exact_neighbours_are_those_of_float64(vectors):
    queries = vectors[np.arange(0, COUNT, 100)]
    allowed = np.arange(COUNT) % 3 > 0
    assert (exact_neighbours(vectors, queries, k=10)[1] == brute_force(vectors, queries, 10)).mean() > 0.999
    _, rows = exact_neighbours(vectors, queries, k=10, allowed=allowed)
    assert (rows == brute_force(vectors, queries, 10, allowed)).mean() > 0.999


@pytest.mark.parametrize("name", ["flat", "hnsw", "ivf", "ivfpq"])
def test_each_kind_finds_what_was_wanted_and_comes_back_from_its_file(vectors, name, tmp_path):
    kind = choose_kind(name, count=COUNT, dimension=DIMENSION, recall=0.9, memory=2**30)
    assert kind.kind == name
    index = faiss_index.build(vectors, np.arange(COUNT), kind, gpu=False)
    tuning = tune(index, vectors, np.arange(COUNT), recall=0.9)
    assert tuning.recall >= 0.9
    assert tuning.effort == 0 if name == "flat" else tuning.effort < max(kind.efforts)
    index.effort = tuning.effort
    index.write(tmp_path / "index")
    content = memoryview((tmp_path / "index").read_bytes())
    given = {"effort": tuning.effort, "rows": COUNT, "dimension": DIMENSION}
    opened = faiss_index.read(content, kind, **given, own=False)

    queries = vectors[np.arange(50)]
    allowed = np.arange(COUNT) % 7 == 0
    for options in ({}, {"allowed": allowed}):
        scores, rows = opened.search(queries, k=5, vectors=vectors, **options)
        again = index.search(queries, k=5, vectors=vectors, **options)
        assert np.array_equal(rows, again[1])
        found = rows >= 0
        assert allowed[rows[found]].all() or not options
        exact = np.einsum("qd,qkd->qk", queries, vectors.embeddings[rows])
        assert np.allclose(scores[found], exact[found], atol=1e-5)

    owned = faiss_index.read(content, kind, **given, own=True)
    new = unit_rows(np.random.default_rng(1).standard_normal((3, DIMENSION), np.float32))
    owned.add([new])
    grown = VectorRows(np.concatenate([vectors.embeddings, new]), None)
    assert owned.search(new, k=1, vectors=grown)[1][:, 0].tolist() == [COUNT, COUNT + 1, COUNT + 2]


def test_a_file_of_something_else_is_an_error(vectors, tmp_path):
    kind = choose_kind("flat", count=COUNT, dimension=DIMENSION, recall=1, memory=2**30)
    faiss_index.build(vectors, np.arange(COUNT), kind, gpu=False).write(tmp_path / "index")
    content = (tmp_path / "index").read_bytes()
    limits = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    for wrong, rows in ((content, COUNT + 1), (content[:-1], COUNT), (b"IxFI" + bytes(40), COUNT), (b"", COUNT)):
        with pytest.raises(DataError):
            faiss_index.read(memoryview(wrong), kind, effort=0, rows=rows, dimension=DIMENSION, own=False)
    # The process may read other files with FAISS.
    assert limits == (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit())


def test_auto_chooses_by_size_memory_and_recall():
    def chosen(count, *, memory=2**34, recall=0.95):
        return choose_kind("auto", count=count, dimension=512, recall=recall, memory=memory)

    assert chosen(900).kind == "flat"
    assert chosen(100_000).kind == "flat"
    assert chosen(1_000_000).kind == "ivf"
    assert chosen(1_000_000).factory == "IVF2048,Flat"
    assert chosen(1_000_000, recall=1).kind == "flat"
    assert chosen(1_000_000, memory=2**31).factory == "IVF2048,PQ64x8"
    assert choose_kind("ivf", count=900, dimension=512, recall=0.9, memory=2**30).kind == "flat"


def test_recall_leaves_each_query_out():
    true = np.array([[7, 1, 2, 3], [1, 9, 5, 6]])
    found = np.array([[7, 3, 2, 8], [9, 1, -1, -1]])
    assert recall_of(found, true, without=np.array([7, 9])) == pytest.approx((2 / 3 + 1 / 3) / 2)

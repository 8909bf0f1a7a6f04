"""The search parameter of an approximate index, chosen by measuring."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggtransfer.retrieval.exact_search import ExactSearch
from vggtransfer.retrieval.index import VectorIndex
from vggtransfer.retrieval.vector_rows import VectorRows

NEIGHBOURS = 10
"""Recall is that at 10: the share of the 10 true nearest neighbours among the 10 found."""

_QUERIES = 500


class Tuning(NamedTuple):
    """A search parameter, and the recall at 10 that was measured with it."""

    effort: int
    recall: float


def tune(index: VectorIndex, vectors: VectorRows, rows: NDArray[np.int64], *, recall: float) -> Tuning:
    """Finds the least effort that reaches a recall on 500 of the pictures, each looked up among the others.

    Args:
        index: Whose effort to choose.
        vectors: Of the collection.
        rows: Those of its pictures.
        recall: Wanted; if no effort reaches it, the result is the largest one.
    """
    if not index.kind.efforts:
        return Tuning(0, 1.0)
    sample = vectors.sample(rows, most=_QUERIES)
    queries = vectors[sample]
    _, true = exact_neighbours(vectors, queries, k=NEIGHBOURS + 1)
    found_recall = 0.0
    for effort in index.kind.efforts:
        _, found = index.search(queries, k=NEIGHBOURS + 1, vectors=vectors, effort=effort)
        found_recall = recall_of(found, true, without=sample)
        if found_recall >= recall:
            return Tuning(effort, found_recall)
    return Tuning(index.kind.efforts[-1], found_recall)


def recall_of(found: NDArray[np.int64], true: NDArray[np.int64], *, without: NDArray[np.int64]) -> float:
    """Share of the true neighbours [queries, k + 1] among those found, each query's own row left out.

    Args:
        found: Rows by an index, [queries, k + 1]; -1 for none.
        true: Rows by exact search, likewise.
        without: The query's own row, [queries].
    """
    shares = []
    for own, those, these in zip(without.tolist(), true.tolist(), found.tolist(), strict=True):
        wanted = [row for row in those if row not in (own, -1)][: len(those) - 1]
        if wanted:
            got = set([row for row in these if row not in (own, -1)][: len(those) - 1])
            shares.append(len(got.intersection(wanted)) / len(wanted))
    return float(np.mean(shares)) if shares else 1.0


def exact_neighbours(
    vectors: VectorRows, queries: NDArray[np.float32], *, k: int, allowed: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k rows with the largest inner products, by comparing all, some thousand at a time.

    Args:
        vectors: Of the collection; need not fit into memory.
        queries: Unit vectors [queries, dimension].
        k: How many.
        allowed: Rows to look among, [rows]; None: all.

    Returns:
        Scores float32 [queries, k], falling, and rows int64 [queries, k]; fewer columns if there are fewer rows.
    """
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    start = 0
    for block in vectors.blocks():
        here = None if allowed is None else allowed[start : start + len(block)]
        of_block, columns = ExactSearch(block).search(queries, k=k, allowed=here)
        scores = np.concatenate([scores, of_block], axis=1)
        rows = np.concatenate([rows, columns + start], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        start += len(block)
    return scores, rows

"""The search parameter of an approximate index, chosen by measuring."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggtransfer.retrieval.exact_neighbours import exact_neighbours
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

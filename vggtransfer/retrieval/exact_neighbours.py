"""The true neighbours in a collection that need not fit into memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vggtransfer.retrieval.exact_search import ExactSearch
from vggtransfer.retrieval.vector_rows import VectorRows


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

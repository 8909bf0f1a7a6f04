"""Whether all parts of an index say the same."""

from __future__ import annotations

import numpy as np

from vggtransfer.errors import DataError
from vggtransfer.retrieval.index_state import IndexState

_LOOKED_UP = 50


def verify(state: IndexState) -> None:
    """Compares the parts of an index, whose digests are right already, with each other.

    Raises:
        DataError: They contradict each other; says how.
    """
    table, vectors, path = state.table, state.vectors, state.folder.path
    if len(np.unique(table.ids)) < len(table) or len(np.unique(table.rows)) < len(table):
        raise DataError(f"{path}: an id or a vector belongs to two pictures; build the index again")
    if len(table) and table.ids.max() >= state.description["next_id"]:
        raise DataError(f"{path}: the id {table.ids.max()} was never given; build the index again")
    if len(set(table.names)) < len(table):
        raise DataError(f"{path}: a path is there twice; build the index again")
    for block in vectors.blocks():
        lengths = np.linalg.norm(block, axis=1)
        if not np.allclose(lengths, 1, atol=1e-3):
            raise DataError(f"{path}: a vector has the length {lengths[np.abs(lengths - 1).argmax()]:g}, not 1")
    if state.index.kind.kind == "hnsw":
        return  # a graph may miss a picture; all others must find it when they look everywhere
    for row in vectors.sample(table.rows, most=_LOOKED_UP):
        # One at a time, or FAISS would not be asked.
        scores, _ = state.index.search(vectors[row : row + 1], k=10, vectors=vectors, effort=state.index.kind.lists)
        if not scores[0, 0] > 1 - 1e-3:
            raise DataError(f"{path}: a picture does not find itself (score {scores[0, 0]:.3f}); run index rebuild")

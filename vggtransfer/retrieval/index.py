"""The vectors of a collection arranged for search: the only file that knows FAISS."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from vggtransfer.cache import write_atomically
from vggtransfer.errors import DataError
from vggtransfer.retrieval.exact_neighbours import exact_neighbours
from vggtransfer.retrieval.index_kind import IndexKind
from vggtransfer.retrieval.vector_rows import VectorRows

VERSION: str = faiss.__version__

_READING = threading.Lock()

_TRAINING_VECTORS_PER_LIST = 40  # FAISS asks for at least 39
_TRAINING_VECTORS_OF_CODES = 256 * 40
_MANY_QUERIES = 4
"""From here on our own exact search beats FAISS's, which takes one query after the other: 100,000 vectors of length 512
took 0.055 against 0.078 s for 4 queries, 0.082 against 0.511 s for 32 (one thread, AVX512-BF16).
"""

_CANDIDATES = 10  # per neighbour wanted, where scores are approximate


class VectorIndex:
    """A FAISS index whose ids are the rows of the vectors.

    Args:
        index: Of FAISS, on the CPU.
        kind: How it is arranged.
        effort: Its search parameter, one of `kind.efforts`; 0 if there is none.
        content: The memory that `index` looks into, if it is not its own.
    """

    def __init__(self, index: Any, kind: IndexKind, *, effort: int, content: memoryview | None = None) -> None:
        self._index = index
        self._content = content
        self.kind = kind
        self.effort = effort

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, blocks: Iterable[NDArray[np.float32]]) -> None:
        """Adds unit vectors [n, dimension], whose rows follow those that are there."""
        for block in blocks:
            self._index.add(np.ascontiguousarray(block))

    def search(
        self,
        queries: NDArray[np.float32],
        *,
        k: int,
        vectors: VectorRows,
        allowed: NDArray[np.bool_] | None = None,
        effort: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the rows with the largest inner products.

        Args:
            queries: Unit vectors [queries, dimension].
            k: How many.
            vectors: Of the collection; read where scores of the index are approximate.
            allowed: Rows to look among, [rows]; None: all.
            effort: Instead of the index's own.

        Returns:
            Scores float32 [queries, k], falling, and rows int64 [queries, k]; where there are fewer, row -1 or fewer
            columns.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self.kind.is_exact and len(queries) >= _MANY_QUERIES:
            return exact_neighbours(vectors, queries, k=k, allowed=allowed)
        wanted = min(k * _CANDIDATES, len(self)) if self.kind.reranked else min(k, len(self))
        selector = None if allowed is None else _selector(allowed)
        parameters = self._parameters(self.effort if effort is None else effort, wanted, selector)
        scores, rows = self._index.search(queries, wanted, params=parameters)
        if self.kind.reranked:
            scores, rows = _compared_anew(queries, rows, vectors, k=k)
        return scores, rows

    def _parameters(self, effort: int, wanted: int, selector: Any) -> Any:
        match self.kind.kind:
            case "hnsw":
                return faiss.SearchParametersHNSW(efSearch=max(effort, wanted), sel=selector)
            case "ivf" | "ivfpq":
                return faiss.SearchParametersIVF(nprobe=effort, sel=selector)
            case "flat":
                return None if selector is None else faiss.SearchParameters(sel=selector)

    def write(self, path: Path) -> None:
        """Writes FAISS's own file, atomically."""
        with write_atomically(path) as temporary:
            faiss.write_index(self._index, str(temporary))


def build(vectors: VectorRows, rows: NDArray[np.int64], kind: IndexKind, *, gpu: bool) -> VectorIndex:
    """Arranges vectors.

    Args:
        vectors: All of them.
        rows: Those to learn lists and codes from.
        kind: How.
        gpu: Whether the first GPU makes the lists of `ivf`; the result lies on the CPU in any case.
    """
    index = faiss.index_factory(vectors.dimension, kind.factory, faiss.METRIC_INNER_PRODUCT)
    gpu = gpu and kind.kind == "ivf" and faiss.get_num_gpus() > 0  # FAISS has not all code sizes there
    if kind.lists:
        index.cp.min_points_per_centroid = 1  # small collections are no reason for a warning
        index.cp.niter = 10
    if kind.kind == "ivfpq":
        index.pq.cp.min_points_per_centroid = 1
        index.do_polysemous_training = False  # takes most of the time, for a kind of search that is not used here
    if gpu:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    if kind.lists:
        most = max(_TRAINING_VECTORS_PER_LIST * kind.lists, _TRAINING_VECTORS_OF_CODES if kind.reranked else 0)
        index.train(vectors[vectors.sample(rows, most=most)])
    for block in vectors.blocks():
        index.add(block)
    if gpu:
        index = faiss.index_gpu_to_cpu(index)
    return VectorIndex(index, kind, effort=kind.efforts[0] if kind.efforts else 0)


def read(content: memoryview, kind: IndexKind, *, effort: int, rows: int, dimension: int, own: bool) -> VectorIndex:
    """Reads FAISS's own format from checked content.

    FAISS trusts the lengths that it reads. What it reads here has the right digest; should that be of no use, no vector
    may be longer than the file, and no loop than the collection.

    Args:
        content: Of the file.
        kind: As it was built.
        effort: As it was chosen.
        rows: Vectors that must be in it.
        dimension: Numbers in each.
        own: Copy it, so that vectors can be added; else it stays in `content`.

    Raises:
        DataError: It is something else.
    """
    numbers = np.frombuffer(content, np.uint8)
    try:
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(numbers), len(numbers))
        flags = faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE  # of no use for inner products
        with _limits(vector_bytes=len(numbers) + 1, loops=max(rows, len(numbers)) + 1):
            index = faiss.deserialize_index(numbers, flags) if own else faiss.read_index(reader, flags)
    except RuntimeError as error:
        raise DataError(f"FAISS cannot read the index: {' '.join(str(error).split())}") from error
    if index.ntotal != rows or index.d != dimension or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise DataError(f"the FAISS file holds {index.ntotal} vectors of {index.d} numbers, not {rows} of {dimension}")
    return VectorIndex(index, kind, effort=effort, content=content)


@contextmanager
def _limits(*, vector_bytes: int, loops: int) -> Iterator[None]:
    """Lowers what FAISS believes of a file; the limits are of the whole process, which may read files of its own."""
    with _READING:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(vector_bytes)
        faiss.set_deserialization_loop_limit(loops)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])


def _selector(allowed: NDArray[np.bool_]) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _compared_anew(
    queries: NDArray[np.float32], rows: NDArray[np.int64], vectors: VectorRows, *, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best k of each query's candidate rows, by exact inner products."""
    best_scores = np.full((len(queries), min(k, rows.shape[1])), -np.inf, np.float32)
    best_rows = np.full(best_scores.shape, -1, np.int64)
    for number, (query, candidates) in enumerate(zip(queries, rows, strict=True)):
        candidates = np.sort(candidates[candidates >= 0])
        scores = vectors[candidates] @ query
        order = np.argsort(-scores, kind="stable")[:k]
        best_scores[number, : len(order)] = scores[order]
        best_rows[number, : len(order)] = candidates[order]
    return best_scores, best_rows

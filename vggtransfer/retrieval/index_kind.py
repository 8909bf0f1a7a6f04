"""Which kind of FAISS index suits a collection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

KindName = Literal["auto", "flat", "hnsw", "ivf", "ivfpq"]
ChosenKind = Literal["flat", "hnsw", "ivf", "ivfpq"]

FEWEST_FOR_LISTS = 1_000
"""Below, a search through lists saves nothing that could be measured, and k-means has too little to go by."""

LARGEST_FLAT = 100_000
"""Up to here a search through everything takes some hundredths of a second, and it misses nothing.

At 512 dimensions one query reads 200 MB of vectors; many at once share that.
"""

_ID_BYTES = 8  # beside each vector in a list
_GRAPH_LINKS = 32
_SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True)
class IndexKind:
    """How the vectors of a collection are arranged.

    Attributes:
        kind: Its name.
        factory: The same for `faiss.index_factory`.
        lists: Of the inverted file; 0 without one.
        efforts: Values to choose the search parameter from, ascending: `nprobe` lists, or `efSearch` of a graph.
        reranked: Whether its scores are approximate, so that candidates are compared anew with the stored vectors.
    """

    kind: ChosenKind
    factory: str
    lists: int = 0
    efforts: tuple[int, ...] = ()
    reranked: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether a search compares with every vector."""
        return self.kind == "flat"


def choose_kind(kind: KindName, *, count: int, dimension: int, recall: float, memory: float) -> IndexKind:
    """Settles the kind and its parameters.

    `auto` takes `flat` for up to 100,000 vectors or a wanted recall of 1; else `ivf`, whose lists are built in a
    fraction of the time of a graph and take new pictures in; and `ivfpq`, with codes of a thirty-second of the size,
    where the vectors would take more than half of the memory.

    Args:
        kind: As asked for.
        count: Vectors.
        dimension: Numbers in each.
        recall: Wanted share of the true nearest neighbours among those found, in (0, 1].
        memory: Bytes that may be used.
    """
    if kind == "auto":
        kind = _automatic(count, dimension, recall, memory)
    if kind in ("ivf", "ivfpq") and count < FEWEST_FOR_LISTS:
        kind = "flat"
    match kind:
        case "hnsw":
            return IndexKind("hnsw", f"HNSW{_GRAPH_LINKS}", efforts=(16, 32, 64, 128, 256, 512, 1024))
        case "ivf":
            lists = _lists(count)
            return IndexKind("ivf", f"IVF{lists},Flat", lists, _doubling(lists))
        case "ivfpq":
            lists = _lists(count)
            codes = _code_bytes(dimension)
            return IndexKind("ivfpq", f"IVF{lists},PQ{codes}x8", lists, _doubling(lists), reranked=True)
        case _:
            return IndexKind("flat", "Flat")


def _automatic(count: int, dimension: int, recall: float, memory: float) -> ChosenKind:
    if recall == 1:
        return "flat"
    needed = count * (4 * dimension + _ID_BYTES)
    if needed > _SHARE_OF_MEMORY * memory and count >= FEWEST_FOR_LISTS:
        return "ivfpq"
    return "flat" if count <= LARGEST_FLAT else "ivf"


def _lists(count: int) -> int:
    """A power of two near 2 sqrt(count): searching its centres costs about as much as searching the lists."""
    return int(2 ** max(4, round(math.log2(2 * math.sqrt(count)))))


def _doubling(lists: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12, ... and all lists, at which the search is exact."""
    steps = {n for power in range(lists.bit_length()) for n in (2**power, 3 * 2**power // 2) if n < lists}
    return (*sorted(steps), lists)


def _code_bytes(dimension: int) -> int:
    """The largest divisor of the dimension up to an eighth of it: codes of a thirty-second of float32, or less."""
    return next(codes for codes in range(max(1, dimension // 8), 0, -1) if dimension % codes == 0)

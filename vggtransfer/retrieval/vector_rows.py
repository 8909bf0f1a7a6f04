"""The embeddings of a collection, one row per picture ever added, in a safetensors file that is mapped, not read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggtransfer.cache import write_atomically
from vggtransfer.features.array_files import ArrayPieces, map_safetensors, write_safetensors
from vggtransfer.retrieval.whitening import Whitening

_TENSOR = "embeddings"
_ROWS_PER_BLOCK = 16_384


class VectorRows:
    """Vectors as a search compares them: the stored embeddings, whitened when they are asked for.

    Args:
        embeddings: Unit vectors of the embedder, float32 [rows, features], perhaps larger than memory.
        whitening: Applied to them, or None.

    Attributes:
        embeddings: As given.
        whitening: As given.
    """

    def __init__(self, embeddings: NDArray[np.float32], whitening: Whitening | None) -> None:
        self.embeddings = embeddings
        self.whitening = whitening

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.embeddings.shape[1]) if self.whitening is None else self.whitening.dimension

    def of(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Whitens embeddings [n, features] of pictures that need not be of the collection."""
        return embeddings if self.whitening is None else self.whitening(embeddings)

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Unit vectors, float32 [n, dimension]."""
        return self.of(np.asarray(self.embeddings[rows]))

    def blocks(self, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """All vectors from a row on, some thousand at a time."""
        for first in range(start, len(self), _ROWS_PER_BLOCK):
            yield self[first : first + _ROWS_PER_BLOCK]

    def sample(self, rows: NDArray[np.int64], *, most: int, seed: int = 0) -> NDArray[np.int64]:
        """Draws up to `most` of some rows; returns them in ascending order."""
        if len(rows) <= most:
            return np.sort(rows)
        return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def write_embeddings(path: Path, pieces: Iterable[NDArray[np.float32]], *, rows: int, features: int) -> None:
    """Writes embeddings piece by piece, atomically."""
    with write_atomically(path) as temporary:
        write_safetensors(temporary, {_TENSOR: ArrayPieces((rows, features), "float32", pieces)}, metadata={})


def embeddings_in(content: memoryview) -> NDArray[np.float32]:
    """The embeddings in the content of such a file, float32 [rows, features], without copying them."""
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(bytes(content[8 : 8 + length]))[_TENSOR]
    return np.frombuffer(content, "<f4", offset=8 + length).reshape(entry["shape"])


def map_embeddings(path: Path) -> NDArray[np.float32]:
    """The embeddings in a file that was just written, float32 [rows, features]."""
    return map_safetensors(path, _TENSOR)


def pieces_of(embeddings: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.float32]]:
    """Some rows of embeddings, or all, some thousand at a time."""
    count = len(embeddings) if rows is None else len(rows)
    for first in range(0, count, _ROWS_PER_BLOCK):
        part = slice(first, first + _ROWS_PER_BLOCK)
        yield embeddings[part] if rows is None else embeddings[rows[part]]

"""Feature maps under the content of their pictures: on disk for this run and later ones, or in memory."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggtransfer.cache import write_atomically

KEY_BYTES = 34  # SHA-256 of the picture's file and the number of the square
KEYS, ROWS = ".keys", ".rows"
_SEGMENT_BYTES = 64 * 2**20


def row_keys(hashes: Iterable[str], squares: int) -> NDArray[np.bytes_]:
    """The keys [pictures, squares] of all squares of pictures with these SHA-256."""
    endings = [square.to_bytes(2, "little") for square in range(squares)]
    keys = [[bytes.fromhex(sha256) + ending for ending in endings] for sha256 in hashes]
    return np.array(keys, dtype=f"S{KEY_BYTES}").reshape(-1, squares)


class MapStore:
    """Rows of equal length, each under a key; rows are added and never changed.

    On disk a store is a folder of segments: NAME.rows with the bytes and NAME.keys with the keys. The keys are written
    last, each file by a rename, so that a segment is there as a whole or not at all; several processes add to one store
    at once, each its own segments.

    Args:
        folder: Where the segments are; None keeps them in this process's memory.
        row_bytes: Length of a row.
    """

    def __init__(self, folder: Path | None, row_bytes: int) -> None:
        self.folder, self.row_bytes = folder, row_bytes
        self._names: list[str] = []
        self._segments: list[NDArray[np.uint8]] = []
        self._keys = np.empty(0, dtype=f"S{KEY_BYTES}")  # sorted
        self._places = np.empty(0, dtype=np.int64)  # segment * 2**32 + row, of each of them
        self._unsorted: list[tuple[NDArray[np.bytes_], NDArray[np.int64]]] = []
        self.refresh()

    def refresh(self) -> None:
        """Takes in the segments that others have written since."""
        if self.folder is None:
            return
        for path in sorted(self.folder.glob(f"*{KEYS}")):
            if path.stem in self._names or path.name.startswith("."):
                continue
            with suppress(OSError, ValueError):  # removed to make room, or not of this program: as if not there
                keys = np.fromfile(path, dtype=f"S{KEY_BYTES}")
                rows = np.memmap(path.with_suffix(ROWS), np.uint8, "r").reshape(-1, self.row_bytes)
                if path.stat().st_size == KEY_BYTES * len(rows):
                    self._take(path.stem, rows, keys)

    def find(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Returns the places of some keys for `fetch`, in the same shape; -1 for those that are not there."""
        self._sort()
        if len(self._keys) == 0:
            return np.full(keys.shape, -1, dtype=np.int64)
        positions = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[positions] == keys, self._places[positions], -1)

    def add(self, batches: Iterable[tuple[NDArray[np.bytes_], Tensor]]) -> None:
        """Adds rows uint8 [batch, row_bytes] with their keys [batch]. If they end early, those that came count.

        Raises:
            OSError: The disk is full or cannot be written; finished segments stay.
        """
        for keys, rows in _joined(batches, max(1, _SEGMENT_BYTES // self.row_bytes)):
            self._add_segment(keys, rows)

    def fetch(self, places: Sequence[int], *, pin: bool = False) -> Tensor:
        """Copies rows into one tensor uint8 [rows, row_bytes]; with `pin` into memory that a GPU can read by itself."""
        result = torch.empty(len(places), self.row_bytes, dtype=torch.uint8, pin_memory=pin)
        target = result.numpy()
        for number, place in enumerate(places):
            target[number] = self._segments[place >> 32][place & 0xFFFFFFFF]
        return result

    def segments_of(self, places: NDArray[np.int64]) -> list[Path]:
        """The files with the keys of the segments that hold some places; those below 0 are left out."""
        assert self.folder is not None
        return [self.folder / f"{self._names[number]}{KEYS}" for number in np.unique(places[places >= 0] >> 32)]

    def _add_segment(self, keys: NDArray[np.bytes_], rows: NDArray[np.uint8]) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        if self.folder is None:
            # Not from the heap, so that the memory goes back to the system with the store.
            kept = np.frombuffer(mmap.mmap(-1, rows.nbytes), dtype=np.uint8).reshape(rows.shape)
            kept[:] = rows
        else:
            path = self.folder / name
            with write_atomically(path.with_suffix(ROWS)) as temporary:
                rows.tofile(temporary)
            with write_atomically(path.with_suffix(KEYS)) as temporary:
                keys.tofile(temporary)
            kept = np.memmap(path.with_suffix(ROWS), np.uint8, "r").reshape(rows.shape)
        self._take(name, kept, keys)

    def _take(self, name: str, rows: NDArray[np.uint8], keys: NDArray[np.bytes_]) -> None:
        places = (len(self._segments) << 32) + np.arange(len(rows), dtype=np.int64)
        self._names.append(name)
        self._segments.append(rows)
        self._unsorted.append((keys, places))

    def _sort(self) -> None:
        if self._unsorted:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._unsorted)])
            places = np.concatenate([self._places, *(places for _, places in self._unsorted)])
            order = np.argsort(keys, kind="stable")
            self._keys, self._places, self._unsorted = keys[order], places[order], []


def _joined(
    batches: Iterable[tuple[NDArray[np.bytes_], Tensor]], room: int
) -> Iterator[tuple[NDArray[np.bytes_], NDArray[np.uint8]]]:
    """Joins batches to segments of `room` rows; the last one may have fewer."""
    waiting: list[tuple[NDArray[np.bytes_], NDArray[np.uint8]]] = []
    count = 0
    for keys, tensor in batches:
        rows = tensor.numpy()
        while len(rows):
            fitting = room - count
            waiting.append((keys[:fitting], rows[:fitting]))
            count += len(rows[:fitting])
            keys, rows = keys[fitting:], rows[fitting:]
            if count == room:
                yield _concatenated(waiting)
                waiting, count = [], 0
    if waiting:
        yield _concatenated(waiting)


def _concatenated(
    parts: Sequence[tuple[NDArray[np.bytes_], NDArray[np.uint8]]],
) -> tuple[NDArray[np.bytes_], NDArray[np.uint8]]:
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([rows for _, rows in parts])

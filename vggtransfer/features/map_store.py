"""Feature maps under the content of their pictures: on disk for this run and later ones, or in memory."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggtransfer.cache import write_atomically

KEY_BYTES = 34  # SHA-256 of the picture's file and the number of the square
_SEGMENT_BYTES = 64 * 2**20
_KEYS, _ROWS = ".keys", ".rows"


class Address(NamedTuple):
    """Where a row lies."""

    segment: int
    row: int


def row_key(sha256: str, square: int) -> bytes:
    """The key of one square of a picture."""
    return bytes.fromhex(sha256) + square.to_bytes(2, "little")


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
        self._segments: list[NDArray[np.uint8]] = []
        self._names: set[str] = set()
        self._addresses: dict[bytes, Address] = {}
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self._addresses

    def refresh(self) -> None:
        """Takes in the segments that others have written since."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(f"*{_KEYS}")):
            if path.stem in self._names or path.name.startswith("."):
                continue
            with suppress(OSError, ValueError):  # removed to make room, or not of this program: as if not there
                keys = path.read_bytes()
                rows = np.memmap(path.with_suffix(_ROWS), np.uint8, "r").reshape(-1, self.row_bytes)
                if len(keys) == KEY_BYTES * len(rows):
                    self._take(path.stem, rows, keys)
        os.utime(self.folder)  # it is in use: the last to be removed

    def add(self, keys: Sequence[bytes], rows: Iterable[Tensor]) -> None:
        """Adds rows.

        Args:
            keys: One key for each row.
            rows: Batches uint8 [batch, row_bytes], in the order of the keys. If they end early, those that came count.

        Raises:
            OSError: The disk is full or cannot be written; finished segments stay.
        """
        room = max(1, _SEGMENT_BYTES // self.row_bytes)
        done = 0
        for segment in _joined(rows, room):
            names = b"".join(keys[done : done + len(segment)])
            done += len(segment)
            self._add_segment(segment, names)

    def fetch(self, addresses: Sequence[Address], *, pin: bool = False) -> Tensor:
        """Copies rows into one tensor uint8 [rows, row_bytes]; with `pin` into memory that a GPU can read by itself."""
        result = torch.empty(len(addresses), self.row_bytes, dtype=torch.uint8, pin_memory=pin)
        target = result.numpy()
        for place, (segment, row) in enumerate(addresses):
            target[place] = self._segments[segment][row]
        return result

    def addresses(self, keys: Iterable[bytes]) -> list[Address]:
        """Where the rows of some keys lie; all of them must be there."""
        return [self._addresses[key] for key in keys]

    def _add_segment(self, rows: NDArray[np.uint8], keys: bytes) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        if self.folder is not None:
            path = self.folder / name
            with write_atomically(path.with_suffix(_ROWS)) as temporary:
                rows.tofile(temporary)
            with write_atomically(path.with_suffix(_KEYS)) as temporary:
                temporary.write_bytes(keys)
            rows = np.memmap(path.with_suffix(_ROWS), np.uint8, "r").reshape(rows.shape)
        self._take(name, rows, keys)

    def _take(self, name: str, rows: NDArray[np.uint8], keys: bytes) -> None:
        self._names.add(name)
        self._segments.append(rows)
        for row in range(len(rows)):
            key = keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]
            self._addresses.setdefault(key, Address(len(self._segments) - 1, row))


def _joined(batches: Iterable[Tensor], room: int) -> Iterator[NDArray[np.uint8]]:
    """Joins batches of rows to segments of `room` rows; the last one may have fewer."""
    waiting: list[NDArray[np.uint8]] = []
    count = 0
    for batch in batches:
        rows = batch.numpy()
        while len(rows):
            part, rows = rows[: room - count], rows[room - count :]
            waiting.append(part)
            count += len(part)
            if count == room:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 if there is none."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process removes it at this moment
            total += path.stat().st_size if path.is_file() else 0
    return total


def make_room(root: Path, needed: int, *, limit: int, keep: Collection[Path]) -> None:
    """Removes the stores below `root` that were not used for longest, until those in use can grow to `needed` bytes.

    Args:
        root: The folder of all stores.
        needed: Bytes that the stores in use will have.
        limit: Bytes that all stores together may take.
        keep: The stores in use.
    """
    if not root.is_dir():
        return
    stores = [path for path in root.iterdir() if path.is_dir() and path not in keep]
    sizes = {path: folder_bytes(path) for path in stores}
    excess = sum(sizes.values()) + needed - limit
    for path in sorted(stores, key=lambda store: store.stat().st_mtime):
        if excess <= 0:
            return
        # Whoever still reads from it keeps the files that are open.
        shutil.rmtree(path, ignore_errors=True)
        excess -= sizes[path]

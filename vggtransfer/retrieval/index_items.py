"""The list of a collection's pictures, and the Parquet file it is kept in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggtransfer.cache import write_atomically
from vggtransfer.errors import DataError


class Item(NamedTuple):
    """One picture of the collection.

    Attributes:
        id: Its number, which no other picture ever gets, whatever is added or removed.
        path: Its file.
        label: Its class folder, or empty.
        sha256: Of its file when it was embedded, 64 hexadecimal digits.
        bytes: Size of its file then.
    """

    id: int
    path: Path
    label: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ItemTable:
    """All pictures by column, in ascending order of their ids.

    Attributes:
        ids: int64 [items].
        rows: Row of each one's vector, int64 [items]; no two share one.
        sizes: Bytes of the files, int64 [items].
        digests: SHA-256 of the files, uint8 [items, 32].
        names: Paths, below the data folder with slashes, or absolute if they lie elsewhere.
        labels: Class folders, or empty.
    """

    ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    digests: NDArray[np.uint8]
    names: Sequence[str]
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def position(self, id: int) -> int | None:  # noqa: A002
        """Where the item with this id stands, or None."""
        at = int(np.searchsorted(self.ids, id))
        return at if at < len(self.ids) and self.ids[at] == id else None

    def positions_by_row(self, rows: int) -> NDArray[np.int64]:
        """Where the item of each row stands, int64 [rows]; -1 where the row's item has been removed."""
        positions = np.full(rows, -1, np.int64)
        positions[self.rows] = np.arange(len(self))
        return positions

    def chosen(self, positions: NDArray[np.integer[Any]]) -> ItemTable:
        """The items at some positions, which must ascend."""
        return ItemTable(
            self.ids[positions],
            self.rows[positions],
            self.sizes[positions],
            self.digests[positions],
            [self.names[position] for position in positions],
            [self.labels[position] for position in positions],
        )

    def item(self, position: int, data: Path) -> Item:
        """The item at a position; `data` is the folder of the pictures."""
        return Item(
            int(self.ids[position]),
            data / self.names[position],
            self.labels[position],
            self.digests[position].tobytes().hex(),
            int(self.sizes[position]),
        )


def empty_table() -> ItemTable:
    """A list without pictures."""
    none = np.empty(0, np.int64)
    return ItemTable(none, none, none, np.empty((0, 32), np.uint8), [], [])


def sorted_by_id(tables: Sequence[ItemTable]) -> ItemTable:
    """Joins lists whose ids all differ."""
    ids = np.concatenate([table.ids for table in tables])
    joined = ItemTable(
        ids,
        np.concatenate([table.rows for table in tables]),
        np.concatenate([table.sizes for table in tables]),
        np.concatenate([table.digests for table in tables]),
        [name for table in tables for name in table.names],
        [label for table in tables for label in table.labels],
    )
    return joined.chosen(np.argsort(ids))


def write_items(path: Path, table: ItemTable) -> None:
    """Writes the list with the columns id, path, label, sha256, bytes and row.

    Names may hold bytes that are no UTF-8, for which Parquet has no text: `path` and `label` show them as escapes, and
    the columns `path_as_bytes` and `label_as_bytes` hold the names themselves where that is so, else null.
    """
    columns: dict[str, pa.Array] = {"id": pa.array(table.ids)}
    for column, texts in (("path", table.names), ("label", table.labels)):
        columns[column] = pa.array([_valid_text(text) for text in texts], pa.string())
        columns[f"{column}_as_bytes"] = pa.array([_bytes_if_needed(text) for text in texts], pa.binary())
    columns["sha256"] = pa.array([digest.tobytes().hex() for digest in table.digests], pa.string())
    columns["bytes"] = pa.array(table.sizes)
    columns["row"] = pa.array(table.rows)
    with write_atomically(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read_items(content: memoryview, path: Path) -> ItemTable:
    """Reads the list from the content of its file; `path` is for the message.

    Raises:
        DataError: It is something else.
    """
    try:
        # Not `read_table`, nor with threads: what those still hold when the interpreter ends makes it abort.
        with pq.ParquetFile(pa.BufferReader(pa.py_buffer(content))) as file:
            columns = file.read(use_threads=False).to_pydict()
        digests = np.frombuffer(bytes.fromhex("".join(columns["sha256"])), np.uint8).reshape(-1, 32)
        return ItemTable(
            np.array(columns["id"], np.int64),
            np.array(columns["row"], np.int64),
            np.array(columns["bytes"], np.int64),
            digests,
            *(
                [
                    shown if exact is None else os.fsdecode(exact)
                    for shown, exact in zip(columns[name], columns[f"{name}_as_bytes"], strict=True)
                ]
                for name in ("path", "label")
            ),
        )
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{path} is no list of pictures ({' '.join(str(error).split())})") from error


def _valid_text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _bytes_if_needed(name: str) -> bytes | None:
    return None if name.isprintable() or _valid_text(name) == name else os.fsencode(name)

"""Memory of which picture files were already checked, so that the next run need not read them again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import cv2
import PIL

from vggtransfer.cache import cache_folder

# The first number counts changes of our own that make decode_image judge differently.
DECODER = f"1 pillow {PIL.__version__} opencv {cv2.__version__}"


class FileState(NamedTuple):
    """A file as it was: when one of these changes, it has to be checked again."""

    path: bytes
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Result:
    """The SHA-256 of a good picture's file, or the reason why it is bad."""

    sha256: str | None
    reason: str = ""


def file_state(path: Path) -> FileState | None:
    """Returns the state of the file a path leads to, or None if it leads nowhere."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    # As bytes, because names on disk need not be valid text.
    return FileState(os.fsencode(os.path.realpath(path)), status.st_size, status.st_mtime_ns)


class ScanResults:
    """Context manager around one SQLite file below the cache folder; it may be used by several processes at once.

    One file for all data sets: SQLite writes it atomically, and need not read all of it to look up a few files. Where
    it cannot be read or written, nothing is remembered, and nothing else happens.
    """

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> ScanResults:
        path = cache_folder() / "scans" / "pictures.sqlite"
        with suppress(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=30)
            try:
                with connection:
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS results (path BLOB PRIMARY KEY, size INTEGER, modified_ns INTEGER,"
                        " decoder TEXT, sha256 TEXT, reason TEXT) WITHOUT ROWID"
                    )
            except sqlite3.OperationalError:  # locked for long, or a full disk
                connection.close()
            except sqlite3.DatabaseError:
                connection.close()
                path.unlink()  # damaged; the next run starts a new one
            else:
                self._connection = connection
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def look_up(self, states: Sequence[FileState]) -> dict[FileState, Result]:
        """Returns what is known of at most 900 files in exactly this state."""
        if self._connection is None or not states:
            return {}
        marks = ",".join("?" * len(states))
        query = f"SELECT path, size, modified_ns, sha256, reason FROM results WHERE decoder = ? AND path IN ({marks})"
        try:
            with closing(self._connection.execute(query, [DECODER, *(state.path for state in states)])) as rows:
                return {FileState(*row[:3]): Result(*row[3:]) for row in rows}
        except sqlite3.Error:
            return {}

    def add(self, results: Iterable[tuple[FileState, Result]]) -> None:
        """Remembers results, in place of earlier ones for the same files."""
        if self._connection is None:
            return
        with suppress(sqlite3.Error), self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)",
                [(*state, DECODER, result.sha256, result.reason) for state, result in results],
            )

"""Bounds what all stores of maps take on disk: the segments that were not used for longest go."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vggtransfer.features.map_store import KEYS, ROWS

_SECONDS_IN_USE = 3600
_SECONDS_OF_LEFTOVERS = 24 * 3600
_PART_OF_DISK = 0.8


class _Segment(NamedTuple):
    used: float
    bytes: int
    keys: Path


def mark_used(segments: Iterable[Path]) -> None:
    """Notes that segments, given by the files with their keys, are in use now."""
    for path in segments:
        with suppress(OSError):  # of another user, or gone
            os.utime(path)


def room(root: Path, *, limit: int, keep: Collection[Path]) -> int:
    """Bytes that can be added below `root`, if need be by removing what is neither to be kept nor in use.

    Args:
        root: The folder of all stores.
        limit: Bytes that all stores together may take.
        keep: Segments to be kept, by the files with their keys.
    """
    segments = _segments(root)
    removable = sum(segment.bytes for segment in _removable(segments, keep))
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = round(_PART_OF_DISK * (shutil.disk_usage(there).free + removable))
    return max(0, min(free, limit - sum(segment.bytes for segment in segments) + removable))


def make_room(root: Path, needed: int, *, limit: int, keep: Collection[Path]) -> None:
    """Removes segments until `needed` bytes can be added, and what killed processes have left.

    Segments that were used in the last hour are not removed: a run may be about to read from them.

    Args:
        root: The folder of all stores.
        needed: Bytes to be added.
        limit: Bytes that all stores together may take.
        keep: Segments to be kept, by the files with their keys.
    """
    _remove_leftovers(root)
    segments = _segments(root)
    excess = sum(segment.bytes for segment in segments) + needed - limit
    for segment in sorted(_removable(segments, keep)):
        if excess <= 0:
            return
        # Without its keys a segment is not found any more; whoever reads from the rows keeps the open file.
        for path in (segment.keys, segment.keys.with_suffix(ROWS)):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            segment.keys.parent.rmdir()  # if it was the last one
        excess -= segment.bytes


def _segments(root: Path) -> list[_Segment]:
    found = []
    for keys in root.glob(f"*/*{KEYS}"):
        with suppress(OSError):  # another process removes it at this moment
            status = keys.stat()
            found.append(_Segment(status.st_mtime, status.st_size + keys.with_suffix(ROWS).stat().st_size, keys))
    return found


def _removable(segments: Iterable[_Segment], keep: Collection[Path]) -> list[_Segment]:
    begun = time.time() - _SECONDS_IN_USE
    return [segment for segment in segments if segment.keys not in keep and segment.used < begun]


def _remove_leftovers(root: Path) -> None:
    for path in root.glob("*/*"):
        with suppress(OSError):
            lost = path.name.startswith(".") or (path.suffix == ROWS and not path.with_suffix(KEYS).exists())
            if lost and path.stat().st_mtime < time.time() - _SECONDS_OF_LEFTOVERS:
                path.unlink()

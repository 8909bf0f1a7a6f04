from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from vggtransfer.features.map_eviction import make_room, mark_used, room
from vggtransfer.features.map_store import MapStore, row_keys

SIZE = 34 + 5  # of a segment of one row


@pytest.fixture
def segments(tmp_path: Path) -> dict[str, Path]:
    """Segments of one row each in two stores, by name; the hours since their last use are in the name."""
    found = {}
    for number, (store, hours) in enumerate([("a", 9), ("a", 3), ("b", 5), ("b", 0)]):
        before = set((tmp_path / store).glob("*.keys"))
        keys = row_keys([f"{number:064x}"], 1)[:, 0]
        MapStore(tmp_path / store, 5).add([(keys, torch.zeros(1, 5, dtype=torch.uint8))])
        (path,) = set((tmp_path / store).glob("*.keys")) - before
        used = time.time() - 3600 * hours
        os.utime(path, (used, used))
        found[f"{store}{hours}"] = path
    return found


def left(segments: dict[str, Path]) -> set[str]:
    alive = {name for name, path in segments.items() if path.exists()}
    assert alive == {name for name, path in segments.items() if path.with_suffix(".rows").exists()}
    return alive


def test_what_was_unused_for_longest_goes_first_in_any_store(tmp_path: Path, segments: dict[str, Path]) -> None:
    make_room(tmp_path, SIZE, limit=5 * SIZE, keep=[])
    assert left(segments) == {"a9", "a3", "b5", "b0"}
    make_room(tmp_path, SIZE + 1, limit=5 * SIZE, keep=[])
    assert left(segments) == {"a3", "b5", "b0"}
    make_room(tmp_path, 3 * SIZE, limit=5 * SIZE, keep=[])
    assert left(segments) == {"a3", "b0"}


def test_what_is_wanted_or_was_used_just_now_stays(tmp_path: Path, segments: dict[str, Path]) -> None:
    mark_used([segments["b5"]])
    make_room(tmp_path, 100 * SIZE, limit=SIZE, keep=[segments["a9"]])
    assert left(segments) == {"a9", "b5", "b0"}


def test_room_is_what_is_free_and_what_can_go(tmp_path: Path, segments: dict[str, Path]) -> None:
    assert room(tmp_path, limit=10 * SIZE, keep=[]) == 9 * SIZE
    assert room(tmp_path, limit=10 * SIZE, keep=[segments["a9"]]) == 8 * SIZE
    assert room(tmp_path, limit=SIZE // 2, keep=list(segments.values())) == 0
    assert room(tmp_path / "nothing" / "there", limit=SIZE, keep=[]) == SIZE


def test_what_killed_processes_left_goes_after_a_day(tmp_path: Path, segments: dict[str, Path]) -> None:
    old, fresh = tmp_path / "a" / ".lost.1-abcdef01.rows", tmp_path / "a" / ".now.1-abcdef01.rows"
    orphan = tmp_path / "b" / "orphan.rows"
    for path in (old, fresh, orphan):
        path.write_bytes(b"x")
    for path in (old, orphan):
        os.utime(path, (1e9, 1e9))
    make_room(tmp_path, 0, limit=10 * SIZE, keep=[])
    assert [path.exists() for path in (old, fresh, orphan)] == [False, True, False]
    assert left(segments) == {"a9", "a3", "b5", "b0"}


def test_folders_that_cannot_be_written_are_no_error(tmp_path: Path) -> None:
    mark_used([tmp_path / "nowhere.keys"])
    make_room(tmp_path / "nowhere", 10, limit=1, keep=[])
    assert list(tmp_path.iterdir()) == []

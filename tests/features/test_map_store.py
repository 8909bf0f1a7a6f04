from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vggtransfer.features import map_store
from vggtransfer.features.map_store import MapStore, folder_bytes, make_room, row_key


def key(number: int, square: int = 0) -> bytes:
    return row_key(f"{number:064x}", square)


def rows(*values: int, length: int = 5) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None].expand(-1, length).contiguous()


@pytest.mark.parametrize("on_disk", [True, False])
def test_rows_are_found_under_their_keys(tmp_path: Path, on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_store, "_SEGMENT_BYTES", 15)  # three rows a segment
    store = MapStore(tmp_path / "store" if on_disk else None, 5)
    store.add([key(number) for number in range(7)], [rows(0, 1), rows(2, 3, 4, 5), rows(6)])
    store.add([key(1, square=1)], [rows(100)])
    assert key(6) in store
    assert key(7) not in store
    wanted = [key(5), key(0), key(1, square=1), key(5)]
    assert store.fetch(store.addresses(wanted)).tolist() == rows(5, 0, 100, 5).tolist()


def test_another_process_finds_what_was_written(tmp_path: Path) -> None:
    one, other = MapStore(tmp_path, 5), MapStore(tmp_path, 5)
    one.add([key(1)], [rows(1)])
    assert key(1) not in other
    other.add([key(2)], [rows(2)])
    other.refresh()
    one.refresh()
    for store in (one, other, MapStore(tmp_path, 5)):
        assert store.fetch(store.addresses([key(2), key(1)])).tolist() == rows(2, 1).tolist()


def test_rows_that_came_before_a_stop_are_kept(tmp_path: Path) -> None:
    MapStore(tmp_path, 5).add([key(1), key(2), key(3)], [rows(1, 2)])
    store = MapStore(tmp_path, 5)
    assert key(2) in store
    assert key(3) not in store


@pytest.mark.parametrize("suffix", [".rows", ".keys"])
def test_half_a_segment_is_none(tmp_path: Path, suffix: str) -> None:
    MapStore(tmp_path, 5).add([key(1), key(2)], [rows(1, 2)])
    MapStore(tmp_path, 5).add([key(3)], [rows(3)])
    broken = max(tmp_path.glob(f"*{suffix}"), key=lambda path: path.stat().st_size)  # of the first one
    broken.write_bytes(broken.read_bytes()[:-3])
    store = MapStore(tmp_path, 5)
    assert [key(number) in store for number in (1, 2, 3)] == [False, False, True]
    if suffix == ".keys":
        broken.unlink()
        assert key(1) not in MapStore(tmp_path, 5)


def test_the_longest_unused_stores_make_room(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old", "mine")):
        MapStore(tmp_path / name, 5).add([key(1)], [rows(1)])
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    each = folder_bytes(tmp_path / "old")
    assert each == 39
    make_room(tmp_path, each, limit=4 * each, keep=[tmp_path / "mine"])
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle", "old", "mine"}
    make_room(tmp_path, 2 * each, limit=4 * each, keep=[tmp_path / "mine"])
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle", "mine"}
    MapStore(tmp_path / "middle", 5)  # used again
    make_room(tmp_path, 3 * each, limit=4 * each, keep=[tmp_path / "mine"])
    assert {path.name for path in tmp_path.iterdir()} == {"middle", "mine"}
    make_room(tmp_path, 100 * each, limit=4 * each, keep=[tmp_path / "mine"])
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}

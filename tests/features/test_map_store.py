from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vggtransfer.features import map_store
from vggtransfer.features.map_store import MapStore, row_keys


def keys(*numbers: int, square: int = 0) -> np.ndarray:
    return row_keys([f"{number:064x}" for number in numbers], square + 1)[:, square]


def rows(*values: int, length: int = 5) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None].expand(-1, length).contiguous()


def values(store: MapStore, wanted: np.ndarray) -> list[int]:
    fetched = store.fetch(store.find(wanted).tolist())
    assert (fetched == fetched[:, :1]).all()
    return fetched[:, 0].tolist()


@pytest.mark.parametrize("on_disk", [True, False])
def test_rows_are_found_under_their_keys(tmp_path: Path, on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_store, "_SEGMENT_BYTES", 15)  # three rows a segment
    store = MapStore(tmp_path / "store" if on_disk else None, 5)
    assert store.find(keys(1)).tolist() == [-1]
    store.add([(keys(0, 1), rows(0, 1)), (keys(2, 3, 4, 5), rows(2, 3, 4, 5)), (keys(6), rows(6))])
    store.add([(keys(1, square=1), rows(100))])
    assert (store.find(keys(6, 7)) >= 0).tolist() == [True, False]
    wanted = np.concatenate([keys(5, 0), keys(1, square=1), keys(5)])
    assert values(store, wanted) == [5, 0, 100, 5]
    assert store.find(wanted.reshape(2, 2)).shape == (2, 2)


def test_keys_that_end_in_zeros_are_told_apart() -> None:
    store = MapStore(None, 5)
    together = row_keys(["ab" * 31 + "00", "ab" * 32], 257)
    picked = together[:, [0, 1, 256]].flatten()
    store.add([(picked, rows(*range(6)))])
    assert values(store, picked) == list(range(6))


def test_another_process_finds_what_was_written(tmp_path: Path) -> None:
    one, other = MapStore(tmp_path, 5), MapStore(tmp_path, 5)
    one.add([(keys(1), rows(1))])
    assert other.find(keys(1)).tolist() == [-1]
    other.add([(keys(2), rows(2))])
    other.refresh()
    one.refresh()
    for store in (one, other, MapStore(tmp_path, 5)):
        assert values(store, keys(2, 1)) == [2, 1]
    assert [path.exists() for path in one.segments_of(one.find(keys(1, 2, 3)))] == [True, True]


@pytest.mark.parametrize("suffix", [".rows", ".keys"])
def test_half_a_segment_is_none(tmp_path: Path, suffix: str) -> None:
    MapStore(tmp_path, 5).add([(keys(1, 2), rows(1, 2))])
    MapStore(tmp_path, 5).add([(keys(3), rows(3))])
    broken = max(tmp_path.glob(f"*{suffix}"), key=lambda path: path.stat().st_size)  # of the first one
    broken.write_bytes(broken.read_bytes()[:-3])
    assert (MapStore(tmp_path, 5).find(keys(1, 2, 3)) >= 0).tolist() == [False, False, True]
    broken.unlink()
    assert (MapStore(tmp_path, 5).find(keys(1, 2, 3)) >= 0).tolist() == [False, False, True]

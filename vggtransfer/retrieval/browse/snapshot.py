"""A collection as it is now, with what takes a while to work out and is asked for on every page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

from vggtransfer.retrieval.browse.collection import Collection
from vggtransfer.retrieval.index_folder import DESCRIPTION_FILE
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.neighbours import DuplicateGroup

_KEPT_THRESHOLDS = 8


class Snapshot:
    """One state of a collection.

    Args:
        index: It.
    """

    def __init__(self, index: Collection) -> None:
        self.index = index
        self._duplicates: dict[float | None, list[DuplicateGroup]] = {}
        self._comparing = threading.Lock()

    @cached_property
    def labels(self) -> dict[str, int]:
        """How many pictures each label has; those without one are left out."""
        return {label: count for label, count in self.index.labels.items() if label}

    def items(self, label: str) -> Sequence[Item]:
        """All pictures, or those of one label."""
        items = self.index.items
        return _Some(items, self._places.get(label, [])) if label else items

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, item in enumerate(self.index.items):
            places.setdefault(item.label, []).append(place)
        return places

    def duplicates(self, threshold: float | None) -> list[DuplicateGroup]:
        """Groups of pictures that are the same or nearly so; compares all with all, once for each threshold."""
        with self._comparing:
            if threshold not in self._duplicates:
                if len(self._duplicates) == _KEPT_THRESHOLDS:
                    self._duplicates.clear()
                self._duplicates[threshold] = self.index.duplicates(threshold=threshold)
            return self._duplicates[threshold]


class _Some(Sequence[Item]):
    """Some places of a sequence of items."""

    def __init__(self, items: Sequence[Item], places: list[int]) -> None:
        self._items, self._places = items, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, position: int) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> list[Item]: ...
    def __getitem__(self, position: int | slice) -> Item | list[Item]:
        places = self._places[position]
        return self._items[places] if isinstance(places, int) else [self._items[place] for place in places]


class Watched:
    """A collection that may be changed by other commands while it is looked at.

    Args:
        index: As it is now.
        reopen: Opens it again when its `index.yaml` is another one.
    """

    def __init__(self, index: Collection, reopen: Callable[[Collection], Collection]) -> None:
        self._reopen = reopen
        self._lock = threading.Lock()
        self._stamp = _stamp(index.path)
        self._snapshot = Snapshot(index)

    @property
    def last(self) -> Snapshot:
        """The collection as it was last opened."""
        return self._snapshot

    def now(self) -> Snapshot:
        """The collection in its present state.

        Raises:
            VGGTransferError: It was changed to something that cannot be opened.
        """
        with self._lock:
            stamp = _stamp(self._snapshot.index.path)
            if stamp not in (None, self._stamp):
                self._snapshot, self._stamp = Snapshot(self._reopen(self._snapshot.index)), stamp
            return self._snapshot


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = (path / DESCRIPTION_FILE).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns

"""Pictures as the maps of a frozen part: filled once, then read in any order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from vggtransfer.cache import cache_folder
from vggtransfer.data.dataset import PictureDataset
from vggtransfer.data.fixed_views import FixedViews
from vggtransfer.data.folders import Sample
from vggtransfer.data.loader import Batches, Key, ordered_batches, picture_loader, stop_workers
from vggtransfer.data.resampling import Picture
from vggtransfer.data.scan_results import DECODER
from vggtransfer.data.transforms import AUGMENTER, sample_seed
from vggtransfer.features.frozen_prefix import FrozenPrefix
from vggtransfer.features.map_format import MapFormat, Storage
from vggtransfer.features.map_store import Address, MapStore, row_key
from vggtransfer.progress_bar import ProgressBar

T = TypeVar("T")

_VERSION = 1  # counts changes of our own that change what is kept
_READ_AHEAD = 2  # batches


def maps_folder() -> Path:
    """The folder of all stores on disk."""
    return cache_folder() / "maps"


class CachedPictures:
    """The pictures of one split; a sample is (map, label, index) by (epoch, index), as pictures are.

    Args:
        samples: The pictures and their labels.
        hashes: SHA-256 of each picture file.
        views: What the frozen part sees of them.
        prefix: The frozen part.
        storage: Number format of what is kept.
        compute_type: In which maps come back.
        seed: Of the run; chooses the view of a sample in an epoch.

    Attributes:
        format: Of one row, that is of one square.
        folder: Where the rows are kept if they are kept on disk.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        hashes: Mapping[Path, str],
        views: FixedViews,
        prefix: FrozenPrefix,
        storage: Storage,
        compute_type: torch.dtype,
        seed: int,
    ) -> None:
        self._samples, self._views, self._prefix = tuple(samples), views, prefix
        self._compute_type, self._seed = compute_type, seed
        self._labels = torch.tensor([sample.label for sample in samples])
        self._keys = [[row_key(hashes[sample.path], number) for number in range(views.squares)] for sample in samples]
        self.format = MapFormat(prefix.shape(views.square_side), storage)
        self._view_shape = prefix.shape(views.image_size)
        self.folder = maps_folder() / self._identity()
        self._store: MapStore | None = None
        self._missing: list[tuple[int, int]] = []
        self._addresses: list[list[Address]] = []

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def row_count(self) -> int:
        """Number of rows of all pictures."""
        return len(self._samples) * self._views.squares

    def kept_on_disk(self) -> float:
        """Which part of the rows is on disk already."""
        store = MapStore(self.folder, self.format.row_bytes)
        rows = [key in store for keys in self._keys for key in keys]
        return sum(rows) / self.row_count

    def look(self, *, on_disk: bool) -> None:
        """Finds out which rows are missing; to be called in all processes before any of them fills."""
        self._store = MapStore(self.folder if on_disk else None, self.format.row_bytes)
        self._missing = [
            (square, index)
            for square in range(self._views.squares)
            for index, keys in enumerate(self._keys)
            if keys[square] not in self._store
        ]

    def fill(
        self,
        *,
        batch_size: int,
        workers: int,
        rank: int,
        processes: int,
        stopped: Callable[[], bool],
    ) -> None:
        """Computes this process's share of the rows that are missing.

        Raises:
            BadImageError: A picture cannot be decoded any more.
            OSError: The disk is full or cannot be written; what is there stays.
        """
        assert self._store is not None
        missing = self._missing[rank::processes]
        if not missing:
            return
        with ProgressBar("computing maps", steps=len(missing), shown=rank == 0) as bar:
            for square in range(self._views.squares):
                indices = [index for of, index in missing if of == square]
                keys = [self._keys[index][square] for index in indices]
                rows = self._rows(indices, square, batch_size=batch_size, workers=workers, bar=bar, stopped=stopped)
                self._store.add(keys, rows)

    def open(self) -> None:
        """Finds all rows, those of other processes too; `fill` was called in all of them."""
        assert self._store is not None
        self._store.refresh()
        self._addresses = [self._store.addresses(keys) for keys in self._keys]

    def batches(self, batches: Sequence[list[Key]], *, pin: bool) -> Iterator[list[Tensor]]:
        """Yields (maps [batch, *shape] in the compute type, labels [batch], indices [batch]), some batches ahead.

        Args:
            batches: (epoch, index) of each sample.
            pin: Put maps where a GPU can fetch them by itself.
        """
        return _ahead(self._batch(keys, pin=pin) for keys in batches)

    def _rows(
        self,
        indices: Sequence[int],
        square: int,
        *,
        batch_size: int,
        workers: int,
        bar: ProgressBar,
        stopped: Callable[[], bool],
    ) -> Iterator[Tensor]:
        pictures = PictureDataset([self._samples[index] for index in indices], _Square(self._views, square), seed=0)
        loader = picture_loader(pictures, Batches(ordered_batches(len(indices), batch_size)), workers=workers)
        try:
            for batch, _, _ in loader:
                if stopped():
                    return
                yield self.format.encode(self._prefix(batch))
                bar.advance(steps=len(batch))
        finally:
            stop_workers(loader)

    def _batch(self, keys: Sequence[Key], *, pin: bool) -> list[Tensor]:
        assert self._store is not None
        places = [self._views.place(sample_seed(self._seed, epoch, index)) for epoch, index in keys]
        indices = [index for _, index in keys]
        rows = self._store.fetch(
            [self._addresses[index][place.square] for index, place in zip(indices, places, strict=True)], pin=pin
        )
        maps = self.format.decode(rows, self._compute_type)
        if self._view_shape != self.format.shape:
            height, width = self._view_shape[1:]
            step = self._views.image_size // height
            corners = [(place.top // step, place.left // step) for place in places]
            cut = [
                square[:, top : top + height, left : left + width]
                for square, (top, left) in zip(maps, corners, strict=True)
            ]
            maps = torch.stack(cut).contiguous(memory_format=torch.channels_last)
        return [maps, self._labels[indices], torch.tensor(indices)]

    def _identity(self) -> str:
        parts = (
            _VERSION,
            self._prefix.digest,
            str(self._prefix.compute_type),
            self._prefix.device.type,
            self.format,
            self._views.steps,
            self._views.image_size,
            self._views.min_side,
            f"{DECODER} {AUGMENTER} torch {torch.__version__}",
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


class _Square:
    """One of the squares of some views as a transform."""

    def __init__(self, views: FixedViews, number: int) -> None:
        self._views, self._number, self.min_side = views, number, views.min_side

    def __call__(self, image: Picture, *, key: int) -> Picture:  # noqa: ARG002
        return self._views.square(image, self._number)


_END = object()


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yields the same items, prepared in a thread while the ones before are used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, _END) for _ in range(_READ_AHEAD))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, items, _END))
            yield item  # type: ignore[misc]

"""Pictures as the maps of a frozen part: computed once, then read in any order."""

from __future__ import annotations

import functools
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vggtransfer.cache import cache_folder
from vggtransfer.data.augmentation_objects import AUGMENTER
from vggtransfer.data.dataset import errors_that_travel
from vggtransfer.data.decode import decode_image
from vggtransfer.data.fixed_views import FixedViews, Place
from vggtransfer.data.folders import Sample
from vggtransfer.data.loader import Batches, Key, picture_loader, stop_workers
from vggtransfer.data.scan_results import DECODER
from vggtransfer.data.transforms import sample_seed
from vggtransfer.errors import BadImageError, TrainingError
from vggtransfer.features.frozen_prefix import FrozenPrefix
from vggtransfer.features.map_eviction import mark_used
from vggtransfer.features.map_format import MapFormat, Storage
from vggtransfer.features.map_store import MapStore, row_keys
from vggtransfer.progress_bar import ProgressBar

T = TypeVar("T")

_VERSION = 1  # counts changes of our own that change what is kept
_READ_AHEAD = 2  # batches
_SECONDS_TO_APPEAR = 20.0  # of files that other machines have written; network file systems look rarely


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
        seed: Of the run; chooses the view of a sample in an epoch.

    Attributes:
        format: Of one row, that is of one square.
        folder: Where the rows are kept if they are kept on disk.
        bytes: Size of all rows.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        hashes: Mapping[Path, str],
        views: FixedViews,
        prefix: FrozenPrefix,
        storage: Storage,
        seed: int,
    ) -> None:
        self._views, self._prefix, self._seed = views, prefix, seed
        self._files = [(sample.path, hashes[sample.path]) for sample in samples]
        self._labels = torch.tensor([sample.label for sample in samples])
        self._keys = row_keys((sha256 for _, sha256 in self._files), views.squares)
        self.format = MapFormat(prefix.shape(views.square_side), storage)
        self._view_shape = prefix.shape(views.image_size)
        self.folder = maps_folder() / self._identity()
        self.bytes = self._keys.size * self.format.row_bytes
        self._store = MapStore(None, self.format.row_bytes)
        self._places = np.empty(self._keys.shape, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._files)

    def on_disk(self) -> tuple[float, list[Path]]:
        """Returns which part of the rows is on disk already, 0 to 1, and the files with the keys of their segments."""
        self._disk.refresh()
        places = self._disk.find(self._keys)
        return float((places >= 0).mean()), self._disk.segments_of(places)

    def fill(
        self,
        *,
        on_disk: bool,
        batch_size: int,
        workers: int,
        rank: int,
        processes: int,
        stopped: Callable[[], bool],
    ) -> None:
        """Computes this process's share of the rows that are missing.

        Raises:
            BadImageError: A picture cannot be decoded any more, or is another one than before.
            OSError: The disk is full or cannot be written; what is there stays.
        """
        if on_disk:
            self._store = self._disk
            self._store.refresh()
        missing = self._store.find(self._keys) < 0
        # By position among all pictures: what is missing may look different to processes that come later.
        mine = [index for index in np.flatnonzero(missing.any(axis=1)).tolist() if index % processes == rank]
        if not mine:
            return
        with ProgressBar("computing maps", steps=int(missing[mine].sum()), shown=rank == 0) as bar:
            together = max(1, batch_size // self._views.squares)
            batches = [[(0, index) for index in mine[at : at + together]] for at in range(0, len(mine), together)]
            squares = _MissingSquares(self._files, self._views, missing)
            loader = picture_loader(squares, Batches(batches), workers=workers, collate=_concatenate)
            try:
                self._store.add(self._rows(loader, missing, bar=bar, stopped=stopped))
            finally:
                stop_workers(loader)

    def open(self) -> None:
        """Finds all rows, those of other processes too; `fill` was called in all of them.

        Raises:
            TrainingError: Some are not there.
        """
        waited_until = time.monotonic() + _SECONDS_TO_APPEAR
        self._store.refresh()
        while (lost := int(((places := self._store.find(self._keys)) < 0).sum())) and time.monotonic() < waited_until:
            time.sleep(0.5)
            self._store.refresh()
        if lost:
            raise TrainingError(f"{lost} maps have gone from {self.folder} since they were written; use --cache off")
        self._places = places

    def batches(self, batches: Sequence[list[Key]]) -> Iterator[list[Tensor]]:
        """Yields (maps [batch, *shape] on the device, labels [batch], indices [batch]); some are read ahead.

        Args:
            batches: (epoch, index) of each sample.
        """
        if self._store.folder is not None:
            mark_used(self._store.segments_of(self._places))
        device = self._prefix.device
        for rows, places, indices in _ahead(self._read(keys) for keys in batches):
            maps = self.format.decode(rows.to(device, non_blocking=True), self._prefix.compute_type)
            yield [self._cut(maps, places), self._labels[indices], torch.tensor(indices)]

    @functools.cached_property
    def _disk(self) -> MapStore:
        """The store on disk, opened once: the keys of large ones take a while to read."""
        return MapStore(self.folder, self.format.row_bytes)

    def _rows(
        self,
        loader: Iterable[tuple[Tensor, list[int]]],
        missing: NDArray[np.bool_],
        *,
        bar: ProgressBar,
        stopped: Callable[[], bool],
    ) -> Iterator[tuple[NDArray[np.bytes_], Tensor]]:
        for squares, indices in loader:
            if stopped():
                return
            keys = np.concatenate([self._keys[index][missing[index]] for index in indices])
            yield keys, self.format.encode(self._prefix(squares))
            bar.advance(steps=len(keys))

    def _read(self, keys: Sequence[Key]) -> tuple[Tensor, list[Place], list[int]]:
        places = [self._views.place(sample_seed(self._seed, epoch, index)) for epoch, index in keys]
        indices = [index for _, index in keys]
        rows = self._places[indices, [place.square for place in places]].tolist()
        return self._store.fetch(rows, pin=self._prefix.device.type == "cuda"), places, indices

    def _cut(self, maps: Tensor, places: Sequence[Place]) -> Tensor:
        """Cuts the views out of maps of larger squares."""
        if self._view_shape == self.format.shape:
            return maps
        height, width = self._view_shape[1:]
        step = self._views.image_size // height
        corners = [(place.top // step, place.left // step) for place in places]
        cut = [
            square[:, top : top + height, left : left + width]
            for square, (top, left) in zip(maps, corners, strict=True)
        ]
        return torch.stack(cut).contiguous(memory_format=torch.channels_last)

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


class _MissingSquares(Dataset[tuple[Tensor, int]]):
    """Of each picture the squares that are missing, uint8 [squares, 3, side, side], and its index."""

    def __init__(self, files: Sequence[tuple[Path, str]], views: FixedViews, missing: NDArray[np.bool_]) -> None:
        self._files, self._views, self._missing = files, views, missing

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        _, index = key
        path, sha256 = self._files[index]
        with errors_that_travel():
            image = decode_image(_unchanged(path, sha256), min_side=self._views.min_side)
            squares = [self._views.square(image, int(number)) for number in np.flatnonzero(self._missing[index])]
        return torch.from_numpy(np.stack(squares).transpose(0, 3, 1, 2).copy()), index


def _unchanged(path: Path, sha256: str) -> bytes:
    """Returns the content of a file if it is still what it was: others will find its maps under its hash."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BadImageError(f"{path}: has changed since the run began")
    return content


def _concatenate(batch: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, list[int]]:
    return torch.cat([squares for squares, _ in batch]), [index for _, index in batch]


_END = object()


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yields the same items, prepared in a thread while the ones before are used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, _END) for _ in range(_READ_AHEAD))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, items, _END))
            yield item  # type: ignore[misc]

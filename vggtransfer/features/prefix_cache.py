"""Training on the maps of a model's frozen part, computed once for every view instead of in every epoch."""

from __future__ import annotations

import bisect
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from vggtransfer.data.fixed_views import SHIFT, FixedViews
from vggtransfer.data.folders import Sample
from vggtransfer.errors import OptionError, TrainingError
from vggtransfer.features.cache_plan import CacheMode, Decision, Work, decide
from vggtransfer.features.cached_pictures import CachedPictures, maps_folder
from vggtransfer.features.cached_stage import CachedStage
from vggtransfer.features.frozen_prefix import (
    FrozenPrefix,
    LayeredModel,
    frozen_length,
    layer_macs,
    length_at_stride,
    prefix_digest,
)
from vggtransfer.features.map_eviction import make_room, mark_used, room
from vggtransfer.features.map_format import storage_of
from vggtransfer.process_memory import available_memory

T = TypeVar("T")
CacheStorage = Literal["auto", "fp32", "bf16", "int8"]


class Group(Protocol):
    """Those that train together, see `vggtransfer.training.session.Session`."""

    rank: int
    processes: int
    device: torch.device

    def on_main(self, work: Callable[[], T], /) -> T:
        """Does something in the main process alone and returns its result in all of them."""
        ...

    def sum(self, values: Tensor, /) -> Tensor:
        """Adds a tensor over all processes."""
        ...


@dataclass(frozen=True)
class CacheOptions:
    """How to keep maps.

    Attributes:
        mode: Where, other than `"off"`.
        storage: In which number format; `"auto"` is the compute type, which loses nothing.
        bytes: What all maps on disk together may take.
        epochs: Of the run.
        batch_size: Pictures per batch while maps are computed.
        workers: Processes that load pictures meanwhile.
        compute_type: Of the frozen part.
        seed: Of the run.
    """

    mode: CacheMode
    storage: CacheStorage
    bytes: int
    epochs: int
    batch_size: int
    workers: int
    compute_type: torch.dtype
    seed: int


class PrefixCache:
    """Finds out, stage by stage, whether the maps of the frozen part are worth keeping, and keeps them.

    A stage ends where the freezing policy or the augmentation changes. On disk, maps outlast the run: they are found
    again by the content of the picture file, the weights of the frozen part, the view, the number formats and the
    versions of what decodes, augments and computes.

    Args:
        train: Training pictures.
        validation: Validation pictures.
        hashes: SHA-256 of each picture file.
        views: Of the training pictures, each with the epoch (from 0) from which on it holds.
        plain: Of the validation pictures.
        policies: Epochs (from 0) from which on another freezing policy holds.
        options: How to keep maps.
        session: The processes that train.
    """

    def __init__(
        self,
        *,
        train: Sequence[Sample],
        validation: Sequence[Sample],
        hashes: Mapping[Path, str],
        views: Sequence[tuple[int, FixedViews]],
        plain: FixedViews,
        policies: Sequence[int],
        options: CacheOptions,
        session: Group,
    ) -> None:
        self._splits, self._hashes = (tuple(train), tuple(validation)), hashes
        self._views, self._plain = tuple(views), plain
        self._borders = sorted({*policies, *(start for start, _ in views), options.epochs})
        self._options, self._session = options, session
        self._stage: CachedStage | None = None

    def stage(self, epoch: int) -> int:
        """Number of the stage that an epoch (from 0) belongs to."""
        return bisect.bisect_right(self._borders, epoch)

    def enter(
        self, epoch: int, model: LayeredModel, *, average: LayeredModel | None, stopped: Callable[[], bool]
    ) -> CachedStage | None:
        """Makes ready for the stage that an epoch belongs to; all processes come here together.

        Args:
            epoch: From 0.
            model: As it trains in this stage.
            average: Its moving average, if that is what is validated.
            stopped: Tells that the run is to end; maps computed so far are kept.

        Returns:
            What is to be trained in place of the model, or None if the stage goes without.

        Raises:
            OptionError: What was asked for has no room.
            TrainingError: Maps cannot be written.
            BadImageError: A picture cannot be decoded any more.
        """
        self._stage = None  # its maps may have to go first
        views = next(views for start, views in reversed(self._views) if start <= epoch)
        length = frozen_length(model)
        if views.square_side > views.image_size:
            length = length_at_stride(model, length, SHIFT)
        if length == 0:
            self._without("nothing is frozen before the first layer that trains")
            return None
        if average is not None and prefix_digest(average, length) != prefix_digest(model, length):
            self._without("the moving average of what is frozen still follows what it was")
            return None
        prefix = FrozenPrefix(model, length, device=self._session.device, compute_type=self._options.compute_type)
        parts = [
            self._part(samples, prefix, of) for samples, of in zip(self._splits, (views, self._plain), strict=True)
        ]
        work = self._work(epoch, model, length, views, parts)
        shared = self._is_shared()
        decision = self._session.on_main(lambda: self._decide(work, parts, shared=shared))
        if decision.where == "off" and self._options.mode != "auto":
            raise OptionError(f"--cache {self._options.mode} is not possible: {decision.reason}")
        if decision.where == "off":
            self._without(decision.reason)
            return None
        place = f"on disk in {maps_folder()}" if decision.where == "disk" else "in memory"
        count = f"{views.squares} views" if views.squares > 1 else "one view"
        what = f"{prefix.last} in {parts[0].format.storage} for {count} of each training picture"
        self._say(f"cache: {place}", f"{what}, {decision.reason}")
        there = self._fill(parts, on_disk=decision.where == "disk", stopped=stopped)
        self._stage = CachedStage(length, prefix.digest, parts[0], parts[1]) if there else None
        return self._stage

    def stage_of(self, model: LayeredModel) -> CachedStage | None:
        """The last stage, if the maps of it serve a model as well."""
        return self._stage if self._stage is not None and self._stage.fits(model) else None

    def _part(self, samples: Sequence[Sample], prefix: FrozenPrefix, views: FixedViews) -> CachedPictures:
        options = self._options
        return CachedPictures(
            samples,
            hashes=self._hashes,
            views=views,
            prefix=prefix,
            storage=storage_of(options.compute_type) if options.storage == "auto" else options.storage,
            seed=options.seed,
        )

    def _work(
        self, epoch: int, model: LayeredModel, length: int, views: FixedViews, parts: Sequence[CachedPictures]
    ) -> Work:
        macs = layer_macs(model, views.image_size)
        return Work(
            epochs=self._borders[self.stage(epoch)] - epoch,
            train_pictures=len(parts[0]),
            validation_pictures=len(parts[1]),
            squares=views.squares,
            square_scale=(views.square_side / views.image_size) ** 2,
            frozen_macs=sum(macs[:length]),
            other_macs=sum(macs[length:]),
            bytes=sum(part.bytes for part in parts),
        )

    def _is_shared(self) -> bool:
        """Whether all processes see the same folder; on machines with disks of their own they do not."""
        if self._session.processes == 1 or self._options.mode == "memory":
            return True
        mark = maps_folder() / f"shared-{secrets.token_hex(8)}"
        mark = self._session.on_main(lambda: _touched(mark))
        seen = self._session.sum(torch.tensor(float(mark.is_file())))
        self._session.on_main(lambda: mark.unlink(missing_ok=True))
        return round(seen.item()) == self._session.processes

    def _decide(self, work: Work, parts: Sequence[CachedPictures], *, shared: bool) -> Decision:
        options = self._options
        found = [part.on_disk() for part in parts] if options.mode != "memory" else [(0.0, [])]
        used = [path for _, paths in found for path in paths]
        return decide(
            options.mode,
            work,
            kept=min(part for part, _ in found),
            free_memory=available_memory(),
            free_disk=room(maps_folder(), limit=options.bytes, keep=used),
            shared=shared,
            processes=self._session.processes,
        )

    def _fill(self, parts: Sequence[CachedPictures], *, on_disk: bool, stopped: Callable[[], bool]) -> bool:
        """Computes what is missing, and finds all of it; false if the stage is to go without."""
        options, session = self._options, self._session
        if on_disk:
            session.on_main(lambda: self._make_room(parts))
        failure: OSError | None = None
        try:
            for part in parts:
                part.fill(
                    on_disk=on_disk,
                    batch_size=options.batch_size,
                    workers=options.workers,
                    rank=session.rank,
                    processes=session.processes,
                    stopped=stopped,
                )
        except OSError as error:
            failure = error
        # All processes have to come to the same end.
        failed, interrupted = session.sum(torch.tensor([float(failure is not None), float(stopped())])).tolist()
        if failed:
            reason = (failure.strerror or str(failure)) if failure else "another process could not write"
            self._cannot_write(f"cannot write maps to {maps_folder()}: {reason}")
        elif not interrupted:
            for part in parts:
                part.open()
        return not failed and not interrupted

    def _make_room(self, parts: Sequence[CachedPictures]) -> None:
        found = [part.on_disk() for part in parts]
        missing = sum(round(part.bytes * (1 - kept)) for part, (kept, _) in zip(parts, found, strict=True))
        used = [path for _, paths in found for path in paths]
        mark_used(used)
        make_room(maps_folder(), missing, limit=self._options.bytes, keep=used)

    def _cannot_write(self, what: str) -> None:
        if self._options.mode == "auto":
            self._without(what)
        elif self._session.rank == 0:
            raise TrainingError(f"{what}; make room, or use --cache off")
        else:
            raise SystemExit(2)  # one message is enough

    def _without(self, reason: str) -> None:
        self._say("cache: off", reason)

    def _say(self, what: str, why: str) -> None:
        if self._session.rank == 0:
            print(f"{what}; {why}", flush=True)


def _touched(path: Path) -> Path:
    with suppress(OSError):  # then nobody sees it
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return path

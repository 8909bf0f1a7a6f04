"""Bringing pictures into an index: what is new is embedded once, what is known keeps its vector and its id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.scan import BadPicture
from vggtransfer.errors import DataError, OptionError
from vggtransfer.features.picture_list import PictureList
from vggtransfer.features.processes import Share
from vggtransfer.retrieval.index_changes import Changes, FoundPictures, compare
from vggtransfer.retrieval.index_embedding import (
    CHANGED_MEANWHILE,
    EmbeddedPart,
    PictureEmbedder,
    Work,
    embed_share,
    embedded_parts,
)
from vggtransfer.retrieval.index_encoder import check_encoder
from vggtransfer.retrieval.index_folder import IndexFolder, check_new
from vggtransfer.retrieval.index_items import ItemTable, empty_table, sorted_by_id
from vggtransfer.retrieval.index_settings import IndexSettings
from vggtransfer.retrieval.index_state import BadFile, IndexState, read_state
from vggtransfer.retrieval.index_writing import NewRows, NextGeneration, write_generation
from vggtransfer.retrieval.vector_rows import pieces_of
from vggtransfer.retrieval.whitening import Whitening


@dataclass(frozen=True)
class IndexChange:
    """What a change did.

    Attributes:
        finished: Whether the index is up to date; not so while other processes have pictures left to embed.
        added: New pictures.
        changed: Pictures whose file has another content than before.
        renamed: Pictures that have moved.
        removed: Pictures that are gone.
        unchanged: All others.
        embedded: Pictures that went through the network for it, over all processes.
        bad: Files that could not be used, and why; of this change and of earlier ones.
    """

    finished: bool
    added: int = 0
    changed: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0
    bad: tuple[BadPicture, ...] = ()


@dataclass(frozen=True)
class Update:
    """Pictures to bring into an index.

    Attributes:
        found: The pictures.
        whole: Whether they are all there is, so that the items of others are removed.
        new: Whether the index is to be a new one.
        settings: Of a new index.
        source: Of a new index: name or path of the encoder's weights, where they came from, and the precision.
        whitening: To use as it is, for a new index.
        batch_size: Pictures per pass through the network.
        workers: Processes that read them; None chooses.
    """

    found: FoundPictures
    whole: bool
    new: bool = False
    settings: IndexSettings = field(default_factory=IndexSettings)
    source: Mapping[str, Any] = field(default_factory=dict)
    whitening: Whitening | None = None
    batch_size: int = 64
    workers: int | None = None


def bring_in(folder: IndexFolder, update: Update, embedder: PictureEmbedder, share: Share) -> IndexChange:
    """Makes or changes an index.

    One process holds the lock from the first look to the last step. Of several, each embeds its share without it, and
    whichever finds all parts there takes the last step; nobody else may change the index meanwhile.

    Raises:
        OptionError: Another process changes the index, or has changed it meanwhile.
        DataError: None of the pictures of a new index can be read.
        OSError: The disk is full.
    """
    alone = share.processes == 1
    with folder.locked() if alone else nullcontext():
        previous = read_state(folder) if folder.exists() else None
        # Of several processes, another one may have finished already.
        if update.new and (alone or (previous is not None and not _is_of(update, previous))):
            check_new(folder.path)
        if previous is not None:
            check_encoder(embedder, previous.description["embedding"], folder.path)
        plan = _Plan(previous, update)
        parts = plan.work.folder(folder.path, embedder)
        complete = not plan.work.parts or embed_share(plan.work, embedder, parts, share)
        with nullcontext() if alone else folder.locked():
            if not alone and _generation(folder) != (previous.generation if previous else 0):
                if parts.exists():
                    raise OptionError(f"{folder.path} was changed by another command meanwhile; repeat this one")
                return plan.summary(finished=True, bad=read_state(folder).bad)  # by another process of this command
            return plan.commit(folder, embedder, parts) if complete else IndexChange(finished=False)


def _is_of(update: Update, previous: IndexState) -> bool:
    """Whether an index is what another process has made of the same command."""
    return previous.data == update.found.pictures.root.resolve() and previous.settings == update.settings


def _generation(folder: IndexFolder) -> int:
    return int(folder.read()["generation"]) if folder.exists() else 0


class _Plan:
    """What to embed, and what the items will be then.

    Args:
        previous: The index as it is.
        update: What to bring in.
    """

    def __init__(self, previous: IndexState | None, update: Update) -> None:
        self._previous, self._update = previous, update
        self._table = empty_table() if previous is None else previous.table
        found = update.found
        self._changes: Changes = compare(self._table, found, whole=update.whole)
        self._bad: dict[int, BadFile] = {
            number: BadFile(found.pictures.name(number), "", reason) for number, reason in found.unreadable.items()
        }
        known_bad = {} if previous is None else {(bad.name, bad.sha256): bad for bad in previous.bad if bad.sha256}
        known = {digest.tobytes(): int(row) for digest, row in zip(self._table.digests, self._table.rows, strict=True)}
        self._copied: list[tuple[int, int]] = []  # number of a file, row of the vector that it shares
        self._numbers: dict[bytes, list[int]] = {}  # by the content to embed, the files that have it
        for number in self._wanted():
            digest = found.digest(number)
            if (bad := known_bad.get((found.pictures.name(number), digest.hex()))) is not None:
                self._bad[number] = bad
            elif digest in known:
                self._copied.append((number, known[digest]))
            else:
                self._numbers.setdefault(digest, []).append(number)
        firsts = [numbers[0] for numbers in self._numbers.values()]
        self.work = Work(
            PictureList(found.pictures.root, map(found.pictures.name, firsts)),
            list(self._numbers),
            update.batch_size,
            update.workers,
        )

    def _wanted(self) -> list[int]:
        """The files that need a vector, in their order."""
        numbers = [*(number for number, _ in self._changes.changed), *self._changes.new]
        return sorted(number for number in numbers if number not in self._bad)

    def commit(self, folder: IndexFolder, embedder: PictureEmbedder, parts_folder: Path) -> IndexChange:
        """Writes the next generation, if there is anything to change."""
        parts = embedded_parts(self.work, parts_folder)
        by_work = list(self._numbers.values())
        order = [number for number, _ in self._copied]  # of the new rows
        for part in parts:
            order += [number for work in part.numbers for number in by_work[work]]
            for work, reason in part.bad.items():
                self._note_bad(by_work[work], reason)
        table, next_id = self._next_table(order)
        bad = self._all_bad()
        if not len(table) and self._previous is None:
            raise DataError(
                f"none of {len(self._update.found.pictures)} pictures can be read, the first: {_shown(bad)}"
            )
        if self._previous is None or self._differs(table, bad):
            described = dict(embedder.description) | dict(self._update.source) | {"digest": embedder.digest}
            old = self._previous
            new = NextGeneration(
                data=self._update.found.pictures.root,
                table=table,
                added=NewRows(len(order), lambda: self._pieces(parts, by_work)),
                bad=bad,
                next_id=next_id,
                embedding=described if old is None else old.description["embedding"],
                features=embedder.dimension,
                settings=self._update.settings if old is None else old.settings,
                whitening=self._update.whitening,
            )
            write_generation(folder, self._previous, new, gpu=embedder.device.type == "cuda")
        return self.summary(finished=True, bad=bad)

    def _note_bad(self, numbers: list[int], reason: str) -> None:
        found = self._update.found
        for number in numbers:
            digest = "" if reason == CHANGED_MEANWHILE else found.digest(number).hex()
            self._bad[number] = BadFile(found.pictures.name(number), digest, reason)

    def _pieces(self, parts: list[EmbeddedPart], by_work: list[list[int]]) -> Iterator[NDArray[np.float32]]:
        if self._previous is not None:
            yield from pieces_of(
                self._previous.vectors.embeddings, np.array([row for _, row in self._copied], np.int64)
            )
        for part in parts:
            times = np.array([len(by_work[work]) for work in part.numbers], np.int64)
            yield np.repeat(part.vectors(), times, axis=0)

    def _next_table(self, order: list[int]) -> tuple[ItemTable, int]:
        """The items after the change, and the id that the next new one will get."""
        found, old = self._update.found, self._table
        first_row = 0 if self._previous is None else len(self._previous.vectors)
        next_id = 0 if self._previous is None else int(self._previous.description["next_id"])
        places = {number: first_row + place for place, number in enumerate(order)}
        stay = np.ones(len(old), bool)
        stay[self._changes.gone] = False
        moving = [*self._changes.kept, *self._changes.renamed]
        ids, rows, numbers = [], [], []
        for number, position in moving:
            stay[position] = False
            ids.append(int(old.ids[position]))
            rows.append(int(old.rows[position]))
            numbers.append(number)
        for number, position in self._changes.changed:
            stay[position] = False
            if number in places:
                ids.append(int(old.ids[position]))
                rows.append(places.pop(number))
                numbers.append(number)
        for number in self._changes.new:
            if number in places:
                ids.append(next_id)
                rows.append(places.pop(number))
                numbers.append(number)
                next_id += 1
        unread = {number: position for number, position in moving if number in found.unreadable}
        fresh = ItemTable(
            np.array(ids, np.int64),
            np.array(rows, np.int64),
            np.array([old.sizes[unread[n]] if n in unread else found.sizes[n] for n in numbers], np.int64),
            np.array([old.digests[unread[n]] if n in unread else found.digests[n] for n in numbers], np.uint8).reshape(
                -1, 32
            ),
            [found.pictures.name(number) for number in numbers],
            [found.labels[number] for number in numbers],
        )
        return sorted_by_id([old.chosen(np.flatnonzero(stay)), fresh]), next_id

    def _all_bad(self) -> tuple[BadFile, ...]:
        """The bad files of this change; of earlier ones too, unless these are all files there are."""
        earlier = () if self._previous is None or self._update.whole else self._previous.bad
        found = self._update.found
        names = {found.pictures.name(number) for number in range(len(found.pictures))}
        return tuple(sorted([*(bad for bad in earlier if bad.name not in names), *self._bad.values()]))

    def _differs(self, table: ItemTable, bad: tuple[BadFile, ...]) -> bool:
        previous = self._previous
        assert previous is not None
        old = previous.table
        same = (
            np.array_equal(table.ids, old.ids)
            and np.array_equal(table.rows, old.rows)
            and list(table.names) == list(old.names)
            and list(table.labels) == list(old.labels)
        )
        return not same or bad != previous.bad or previous.data != self._update.found.pictures.root.resolve()

    def summary(self, *, finished: bool, bad: tuple[BadFile, ...]) -> IndexChange:
        """Counts what was done."""
        changes, names = self._changes, {file.name for file in bad}
        name = self._update.found.pictures.name
        lost = sum(name(number) in names for number, _ in changes.changed)
        return IndexChange(
            finished=finished,
            added=sum(name(number) not in names for number in changes.new),
            changed=len(changes.changed) - lost,
            renamed=len(changes.renamed),
            removed=len(changes.gone) + lost,
            unchanged=len(self._table) - len(changes.changed) - len(changes.renamed) - len(changes.gone),
            embedded=sum(not any(name(number) in names for number in same) for same in self._numbers.values()),
            bad=tuple(BadPicture(self._update.found.pictures.root / file.name, file.reason) for file in bad),
        )


def _shown(bad: tuple[BadFile, ...]) -> Any:
    return f"{bad[0].name}: {bad[0].reason}"

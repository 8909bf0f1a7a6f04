"""From one generation of an index to the next: only what changes is written, and one step makes it the index."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vggtransfer
from vggtransfer.process_memory import available_memory
from vggtransfer.retrieval import index as faiss_index
from vggtransfer.retrieval.index import VectorIndex
from vggtransfer.retrieval.index_folder import FORMAT, IndexFolder, file_entry
from vggtransfer.retrieval.index_items import ItemTable, write_items
from vggtransfer.retrieval.index_kind import FEWEST_FOR_LISTS, IndexKind, choose_kind
from vggtransfer.retrieval.index_settings import IndexSettings
from vggtransfer.retrieval.index_state import BadFile, IndexState, write_bad_files
from vggtransfer.retrieval.index_tuning import Tuning, tune
from vggtransfer.retrieval.vector_rows import VectorRows, map_embeddings, pieces_of, write_embeddings
from vggtransfer.retrieval.whitening import Whitening, learned_whitening, pairs_of_labels, pca_whitening

_DEAD_SHARE = 0.25
_GROWTH = 2.0
_MORE = 1.25
_WHITENING_SAMPLE = 50_000
_GIB = 2**30


@dataclass(frozen=True)
class NewRows:
    """Embeddings that come after those that are there.

    Attributes:
        count: How many.
        pieces: Yields them in order, float32 [n, features]; can be called more than once.
    """

    count: int
    pieces: Callable[[], Iterator[NDArray[np.float32]]]


@dataclass(frozen=True)
class NextGeneration:
    """What the index is to become.

    Attributes:
        data: The folder of the pictures.
        table: The pictures; rows from the number of those there are now on are new ones.
        added: The new rows.
        bad: Files that gave no vector.
        next_id: Which the next new picture gets.
        embedding: How vectors are made, in plain types.
        features: Length of the embeddings.
        settings: What was asked for.
        whitening: To use as it is; None: that of the index, or one learnt if the settings ask for it.
        anew: Whether to arrange all vectors anew in any case.
        relearn: Whether to learn the whitening anew then.
    """

    data: Path
    table: ItemTable
    added: NewRows
    bad: tuple[BadFile, ...]
    next_id: int
    embedding: dict[str, Any]
    features: int
    settings: IndexSettings
    whitening: Whitening | None = None
    anew: bool = False
    relearn: bool = False


def no_rows() -> NewRows:
    """No new embeddings."""
    return NewRows(0, lambda: iter(()))


class _Files:
    """The files of the generation in the making: those of the last one, until they are written anew."""

    def __init__(self, folder: IndexFolder, previous: IndexState | None) -> None:
        self.folder = folder
        self.generation = 1 if previous is None else previous.generation + 1
        self.entries: dict[str, Any] = {} if previous is None else dict(previous.description["files"])

    def write(self, role: str, suffix: str, write: Callable[[Path], None]) -> Path:
        path = self.folder.file(self.generation, role, suffix)
        write(path)
        self.entries[role] = file_entry(path)
        return path


def write_generation(folder: IndexFolder, previous: IndexState | None, new: NextGeneration, *, gpu: bool) -> None:
    """Writes the next generation and makes it the index; call it with the lock held.

    New vectors are appended. All are arranged anew if a quarter of the rows belongs to no picture any more, if the
    collection has doubled since its lists were made, or if another kind suits it now.

    Raises:
        OptionError: A whitening cannot be learnt from these pictures.
        OSError: The disk is full.
    """
    files = _Files(folder, previous)
    built = {} if previous is None else dict(previous.description["index"])
    table = new.table
    if previous is None or new.anew or _is_worn(previous, new):
        table, vectors = _written_anew(files, previous, new)
        arranged, tuning = _arranged(vectors, table, new.settings, gpu=gpu)
        built = _description_of(arranged, tuning, vectors, count=len(table))
        files.write("faiss", ".index", arranged.write)
    elif new.added.count:
        _append(files, previous, new)
    files.write("items", ".parquet", lambda path: write_items(path, table))
    if previous is None or new.bad != previous.bad:
        files.write("bad_pictures", ".csv", lambda path: write_bad_files(path, new.bad))
    folder.switch(
        {
            "format": FORMAT,
            "generation": files.generation,
            "pictures": len(table),
            "bad_pictures": len(new.bad),
            "data": str(new.data.resolve()),
            "embedding": new.embedding,
            "metric": "cosine",
            "index": built,
            "wanted": asdict(new.settings),
            "next_id": new.next_id,
            "files": files.entries,
            "versions": _versions(),
        }
    )


def _is_worn(previous: IndexState, new: NextGeneration) -> bool:
    built, live = previous.description["index"], len(new.table)
    rows = len(previous.vectors) + new.added.count
    if rows - live > _DEAD_SHARE * rows:
        return True
    if built["lists"] and live > _GROWTH * built["built_from"]:
        return True
    kind = _kind(new.settings, count=live, dimension=previous.vectors.dimension)
    # Back and forth about a limit, or as memory comes and goes, would arrange everything each time.
    moved = live > _MORE * built["built_from"] or live < FEWEST_FOR_LISTS / 2
    return kind.kind != built["kind"] and moved


def _kind(settings: IndexSettings, *, count: int, dimension: int) -> IndexKind:
    memory = available_memory() if settings.max_memory is None else 2 * settings.max_memory * _GIB
    return choose_kind(settings.kind, count=count, dimension=dimension, recall=settings.recall, memory=memory)


def _append(files: _Files, previous: IndexState, new: NextGeneration) -> None:
    old = previous.vectors.embeddings
    rows = len(old) + new.added.count
    pieces = itertools.chain(pieces_of(old), new.added.pieces())
    files.write(
        "vectors", ".safetensors", lambda path: write_embeddings(path, pieces, rows=rows, features=new.features)
    )
    arranged = previous.own_index()
    arranged.add(previous.vectors.of(piece) for piece in new.added.pieces())
    files.write("faiss", ".index", arranged.write)


def _written_anew(files: _Files, previous: IndexState | None, new: NextGeneration) -> tuple[ItemTable, VectorRows]:
    """Writes the vectors of all pictures, without those of removed ones, and the whitening."""
    there = 0 if previous is None else len(previous.vectors)
    old = np.sort(new.table.rows[new.table.rows < there])
    places = np.full(there + new.added.count, -1, np.int64)
    places[np.concatenate([old, np.arange(there, len(places))])] = np.arange(len(old) + new.added.count)
    table = replace(new.table, rows=places[new.table.rows])
    kept = pieces_of(previous.vectors.embeddings, old) if previous is not None else iter(())
    pieces = itertools.chain(kept, new.added.pieces())
    rows = len(old) + new.added.count
    path = files.write(
        "vectors", ".safetensors", lambda path: write_embeddings(path, pieces, rows=rows, features=new.features)
    )
    embeddings = map_embeddings(path)
    whitening = new.whitening
    if previous is not None and not new.relearn:
        whitening = previous.vectors.whitening
    if whitening is None and new.settings.whiten is not None:
        whitening = _learnt(VectorRows(embeddings, None), table, new.settings)
    files.entries.pop("whitening", None)
    if whitening is not None:
        files.write("whitening", ".safetensors", whitening.save)
    return table, VectorRows(embeddings, whitening)


def _learnt(vectors: VectorRows, table: ItemTable, settings: IndexSettings) -> Whitening:
    positions = vectors.sample(np.arange(len(table)), most=_WHITENING_SAMPLE)
    chosen = table.chosen(positions)
    order = np.argsort(chosen.rows)
    sample = vectors[chosen.rows[order]]
    if settings.whitening == "pca":
        return pca_whitening(sample, dimension=settings.whiten)
    labels = np.array(chosen.labels, object)[order]
    labelled = labels != ""
    return learned_whitening(sample[labelled], pairs_of_labels(labels[labelled].astype(str)), dimension=settings.whiten)


def _arranged(
    vectors: VectorRows, table: ItemTable, settings: IndexSettings, *, gpu: bool
) -> tuple[VectorIndex, Tuning]:
    kind = _kind(settings, count=len(table), dimension=vectors.dimension)
    arranged = faiss_index.build(vectors, np.sort(table.rows), kind, gpu=gpu)
    tuning = tune(arranged, vectors, table.rows, recall=settings.recall)
    arranged.effort = tuning.effort
    return arranged, tuning


def _description_of(arranged: VectorIndex, tuning: Tuning, vectors: VectorRows, *, count: int) -> dict[str, Any]:
    return {
        "kind": arranged.kind.kind,
        "factory": arranged.kind.factory,
        "dimension": vectors.dimension,
        "lists": arranged.kind.lists,
        "effort": tuning.effort,
        "recall": round(tuning.recall, 4),
        "built_from": count,
        "whitening": None if vectors.whitening is None else vectors.whitening.kind,
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "vggtransfer": vggtransfer.__version__,
        "faiss": faiss_index.VERSION,
        **{name: metadata.version(name) for name in ("numpy", "pyarrow", "safetensors", "torch")},
    }

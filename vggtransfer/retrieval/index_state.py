"""An index as it lies on disk, read and checked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vggtransfer.cache import write_atomically
from vggtransfer.errors import DataError
from vggtransfer.retrieval import index as faiss_index
from vggtransfer.retrieval.index import VectorIndex
from vggtransfer.retrieval.index_folder import CheckedFile, IndexFolder
from vggtransfer.retrieval.index_items import ItemTable, read_items
from vggtransfer.retrieval.index_kind import IndexKind
from vggtransfer.retrieval.index_settings import IndexSettings
from vggtransfer.retrieval.vector_rows import VectorRows, embeddings_in
from vggtransfer.retrieval.whitening import whitening_in


class BadFile(NamedTuple):
    """A file that gave no vector, by its name in the collection, and why; sha256 is empty if it could not be read."""

    name: str
    sha256: str
    reason: str


@dataclass(frozen=True)
class IndexState:
    """One generation of an index.

    Attributes:
        folder: Where it lies.
        description: What `index.yaml` says.
        table: The pictures.
        vectors: Theirs, and those of removed pictures.
        index: FAISS's arrangement of them.
        bad: Files that gave no vector.
        files: All of them, checked, by role.
    """

    folder: IndexFolder
    description: dict[str, Any]
    table: ItemTable
    vectors: VectorRows
    index: VectorIndex
    bad: tuple[BadFile, ...]
    files: dict[str, CheckedFile]

    @property
    def generation(self) -> int:
        """Counts the changes."""
        return int(self.description["generation"])

    @property
    def data(self) -> Path:
        """The folder of the pictures."""
        return Path(self.description["data"])

    @property
    def settings(self) -> IndexSettings:
        """What was asked for."""
        return IndexSettings(**self.description["wanted"])

    def own_index(self) -> VectorIndex:
        """A copy of the FAISS index to which vectors can be added."""
        return _read_index(self.description, self.files["faiss"], self.vectors, own=True)


def read_state(folder: IndexFolder) -> IndexState:
    """Reads and checks an index.

    Raises:
        OptionError: There is none.
        IndexDamagedError: A file is not as it was written.
        DataError: The files contradict each other.
    """
    description, files = folder.read_and_check()
    table = read_items(files["items"].content, files["items"].path)
    file = files.get("whitening")
    whitening = None if file is None else whitening_in(bytes(file.content), file.path)
    vectors = VectorRows(embeddings_in(files["vectors"].content), whitening)
    if len(table) and not (table.rows.min() >= 0 and table.rows.max() < len(vectors)):
        raise DataError(f"{files['items'].path} names vectors that are not there; build the index again")
    bad = tuple(BadFile(*row) for row in csv.reader(_text_of(files["bad_pictures"])))[1:]
    index = _read_index(description, files["faiss"], vectors, own=False)
    return IndexState(folder, description, table, vectors, index, bad, files)


def _read_index(description: dict[str, Any], file: CheckedFile, vectors: VectorRows, *, own: bool) -> VectorIndex:
    built = description["index"]
    kind = IndexKind(built["kind"], built["factory"], built["lists"], reranked=built["kind"] == "ivfpq")
    return faiss_index.read(
        file.content, kind, effort=built["effort"], rows=len(vectors), dimension=vectors.dimension, own=own
    )


def _text_of(file: CheckedFile) -> io.StringIO:
    return io.StringIO(bytes(file.content).decode("utf-8", "surrogateescape"), newline="")


def write_bad_files(path: Path, bad: Iterable[BadFile]) -> None:
    """Writes a CSV file with the columns path, sha256 and reason."""
    with (
        write_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["path", "sha256", "reason"])
        writer.writerows(bad)

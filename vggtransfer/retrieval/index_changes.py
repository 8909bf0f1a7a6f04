"""What has become of a collection's pictures since they were indexed, told by the content of the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.folders import find_class_folders
from vggtransfer.features.picture_list import PictureList, list_folder
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.retrieval.index_items import ItemTable

_READERS = 8
_FILES_AT_ONCE = 1024


@dataclass(frozen=True)
class FoundPictures:
    """Picture files as they are now, by number.

    Attributes:
        pictures: Their paths.
        labels: Class folders, or empty.
        sizes: Bytes, int64 [files].
        digests: SHA-256, uint8 [files, 32].
        unreadable: Numbers of files that could not be read, and why.
    """

    pictures: PictureList
    labels: Sequence[str]
    sizes: NDArray[np.int64]
    digests: NDArray[np.uint8]
    unreadable: dict[int, str]

    def digest(self, number: int) -> bytes:
        """SHA-256 of a file."""
        return bytes(self.digests[number])


@dataclass
class Changes:
    """Differences between files and items: numbers of files, positions of items, or both.

    Attributes:
        kept: Same path, same content; or a file that cannot be read at the moment.
        renamed: Same content at a path that is new, while the old one is gone.
        changed: Same path, other content.
        new: Everything else that was found.
        gone: Items whose file is not there any more.
    """

    kept: list[tuple[int, int]] = field(default_factory=list)
    renamed: list[tuple[int, int]] = field(default_factory=list)
    changed: list[tuple[int, int]] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)


def find_in_folder(data: Path) -> FoundPictures:
    """Lists and reads all pictures below a folder.

    Raises:
        DataError: The folder cannot be read, or it has no pictures.
    """
    classes = find_class_folders(data)
    pictures = list_folder(data)
    labels = [classes.label(pictures.name(number)) for number in range(len(pictures))]
    return _read(pictures, labels)


def find_files(paths: Sequence[Path], data: Path, *, label: str | None) -> FoundPictures:
    """Reads given files.

    Args:
        paths: The files.
        data: The folder of the collection; files below it are named from there, others by their absolute path.
        label: Of all of them; None: their class folder below `data`, none for files that lie elsewhere.
    """
    root = data.resolve()
    # Not the paths' own targets: a link below the folder belongs to the folder.
    absolute = [path.parent.resolve() / path.name for path in paths]
    spelt = (str(path.relative_to(root).as_posix() if path.is_relative_to(root) else path) for path in absolute)
    names = list(dict.fromkeys(spelt))  # one file may be given in several ways
    pictures = PictureList(root, names)
    if label is not None:
        return _read(pictures, [label] * len(names))
    classes = find_class_folders(root)
    return _read(pictures, ["" if Path(name).is_absolute() else classes.label(name) for name in names])


def compare(table: ItemTable, found: FoundPictures, *, whole: bool) -> Changes:
    """Tells what has changed.

    Args:
        table: The items.
        found: The files.
        whole: Whether these are all pictures of the data folder, so that items below it without a file are gone.
    """
    changes = Changes()
    positions = {name: position for position, name in enumerate(table.names)}
    seen: set[int] = set()
    for number in range(len(found.pictures)):
        position = positions.get(found.pictures.name(number))
        if position is None:
            changes.new.append(number)
            continue
        seen.add(position)
        # What cannot be read now may be so again tomorrow; it is reported, but no reason to forget a picture.
        same = number in found.unreadable or found.digest(number) == table.digests[position].tobytes()
        (changes.kept if same else changes.changed).append((number, position))
    if whole:
        changes.gone = [
            position
            for position, name in enumerate(table.names)
            if position not in seen and not Path(name).is_absolute()
        ]
        _pair_renamed(changes, table, found)
    return changes


def _pair_renamed(changes: Changes, table: ItemTable, found: FoundPictures) -> None:
    """Takes what is new and what is gone for the same picture where their contents are equal."""
    waiting: dict[bytes, list[int]] = {}
    for position in reversed(changes.gone):
        waiting.setdefault(table.digests[position].tobytes(), []).append(position)
    new = []
    for number in changes.new:
        same = [] if number in found.unreadable else waiting.get(found.digest(number), [])
        if same:
            changes.renamed.append((number, same.pop()))
        else:
            new.append(number)
    moved = {position for _, position in changes.renamed}
    changes.new = new
    changes.gone = [position for position in changes.gone if position not in moved]


def _read(pictures: PictureList, labels: Sequence[str]) -> FoundPictures:
    sizes = np.zeros(len(pictures), np.int64)
    digests = np.zeros((len(pictures), 32), np.uint8)
    unreadable: dict[int, str] = {}
    with ProgressBar("looking at the files", steps=len(pictures), shown=True) as bar:
        for number, (size, digest, reason) in enumerate(_states(pictures)):
            if reason:
                unreadable[number] = reason
            else:
                sizes[number], digests[number] = size, np.frombuffer(digest, np.uint8)
            bar.advance()
    return FoundPictures(pictures, labels, sizes, digests, unreadable)


def _states(pictures: PictureList) -> Iterator[tuple[int, bytes, str]]:
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(pictures), _FILES_AT_ONCE):
            numbers = range(start, min(start + _FILES_AT_ONCE, len(pictures)))
            yield from pool.map(_state, [pictures.path(number) for number in numbers])


def _state(path: Path) -> tuple[int, bytes, str]:
    """Size and SHA-256 of a file, or why there are none."""
    try:
        if path.exists() and not path.is_file():
            return 0, b"", "it is not a regular file"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            return file.tell(), digest, ""
    except OSError as error:
        return 0, b"", error.strerror or str(error)

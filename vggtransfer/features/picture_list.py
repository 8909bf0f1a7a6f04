"""All pictures below a folder, a million of them in little memory."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable
from pathlib import Path

from vggtransfer.data.decode import PICTURE_SUFFIXES
from vggtransfer.data.picture_files import seen_instead, walk_files
from vggtransfer.errors import DataError


class PictureList:
    """Paths below a folder by number, in one piece of memory that processes which read pictures can share.

    Args:
        root: The folder.
        names: The paths below it, with slashes.

    Attributes:
        root: The folder.
        digest: SHA-256 of the names: the same for the same list wherever the folder lies.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        characters = bytearray()
        self._ends = array("Q")
        for name in names:
            characters += os.fsencode(name)
            self._ends.append(len(characters))
        self._characters = bytes(characters)
        self.digest = hashlib.sha256(self._characters + self._ends.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """The path below the folder."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._characters[start : self._ends[index]])

    def path(self, index: int) -> Path:
        return self.root / self.name(index)


def list_folder(data: Path) -> PictureList:
    """Finds everything below a folder that looks like a picture by its name, in the order of the paths.

    Raises:
        DataError: The folder cannot be read, or it has no pictures.
    """
    others: list[Path] = []

    def names() -> Iterable[str]:
        for path in walk_files(data):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                yield path.relative_to(data).as_posix()
            elif len(others) < 1000:
                others.append(path)

    found = PictureList(data, names())
    if not len(found):
        raise DataError(f"--data {data}: there are no pictures{seen_instead(others)}")
    return found

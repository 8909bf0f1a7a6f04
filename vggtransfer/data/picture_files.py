"""Finding picture files below folders, by patterns and from lists; what they hold is not looked at."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vggtransfer.data.decode import PICTURE_SUFFIXES
from vggtransfer.errors import DataError

# What lies beside these was written by a command of this package.
_MARKS_OF_RESULTS = frozenset({"recipe.yaml", "environment.json"})

_LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"})


def list_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """Expands what a user typed to picture files, in that order, each once.

    A file is taken whatever its name; of a folder (and everything below it) and of a pattern such as `photos/**/*.jpg`,
    the files that look like pictures by name, sorted; `-` reads one of these per line from standard input.

    Raises:
        DataError: Something does not exist, or a folder or pattern has no pictures.
    """
    expanded: dict[Path, Path] = {}
    for path in _with_standard_input(paths):
        for picture in _expand(path):
            expanded.setdefault(picture.absolute(), picture)
    if not expanded:
        raise DataError("no pictures given; name files, folders, patterns ('photos/*.jpg') or '-' for standard input")
    return list(expanded.values())


def _with_standard_input(paths: Iterable[str | Path]) -> Iterator[str]:
    for path in paths:
        if str(path) == "-":
            if isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(errors="surrogateescape")  # names need not be valid text
            lines = (line.rstrip("\r\n") for line in sys.stdin)
            yield from (line if os.path.lexists(line) else line.strip() for line in lines if line.strip())
        else:
            yield str(path)


def _expand(text: str) -> Iterable[Path]:
    path = Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)
    if path.is_dir():
        pictures, others = find_pictures(path)
        if not pictures:
            raise DataError(f"no pictures in {path}{seen_instead(others)}")
        return pictures
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(text):
        raise DataError(f"no such file or folder: {text}")
    # Not Path.glob, which takes no absolute patterns.
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    found = [picture for match in matches for picture in (find_pictures(match)[0] if match.is_dir() else [match])]
    if not (pictures := [picture for picture in found if picture.suffix.lower() in PICTURE_SUFFIXES]):
        raise DataError(f"no pictures match the pattern {text}")
    return pictures


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what lies directly in a folder, sorted, without hidden files and what operating systems leave behind."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _ignored(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the visible folders directly in a folder, sorted."""
    return [entry.name for entry in visible_entries(folder) if entry.is_dir()]


def find_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns all pictures and all other files below a folder, sorted by path, through symlinks but not in circles."""
    pictures: list[Path] = []
    others: list[Path] = []
    for path in walk_files(folder):
        (pictures if path.suffix.lower() in PICTURE_SUFFIXES else others).append(path)
    return pictures, others


def walk_files(folder: Path) -> Iterator[Path]:
    """Yields all visible files below a folder, in the order of their paths, through symlinks but not in circles.

    A link to nowhere counts as a file too, so that it is reported and not overlooked. Folders that a command of this
    package has written are left out: figures of a run below the data are no data.

    Raises:
        DataError: A folder cannot be read.
    """

    def visit(here: Path, ancestors: frozenset[str]) -> Iterator[Path]:
        real = os.path.realpath(here)
        if real in ancestors:
            return
        entries = visible_entries(here)
        if ancestors and not _MARKS_OF_RESULTS.isdisjoint(entry.name for entry in entries):
            return
        for entry in entries:
            path = here / entry.name
            if entry.is_dir():
                yield from visit(path, ancestors | {real})
            else:
                yield path

    return visit(folder, frozenset())


def seen_instead(others: Sequence[Path]) -> str:
    """Returns ` (only 12 x .heic, 3 x .txt)`, or nothing if there were no files at all."""
    endings = Counter(path.suffix.lower() or path.name for path in others)
    return f" (only {', '.join(f'{count} x {ending}' for ending, count in endings.most_common(3))})" if endings else ""

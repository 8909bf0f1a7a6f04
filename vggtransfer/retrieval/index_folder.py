"""The directory of an index: immutable files, and `index.yaml` that says which of them are the index now.

A change writes new files beside the old ones, then puts a new `index.yaml` in the old one's place, which is one step
for the file system. Whoever dies on the way leaves the old index; files that `index.yaml` does not name mean nothing
and go with the next change.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from vggtransfer.cache import remove_leftovers, write_atomically
from vggtransfer.errors import DataError, OptionError

DESCRIPTION_FILE = "index.yaml"
PARTS_PREFIX = "parts-"
FORMAT = 1

_LOCK_FILE = ".lock"
_SECONDS_TO_WAIT = 10
# Of these alone we may say that they are ours: others with a number in front may be somebody's pictures.
_FILE_NAME = re.compile(r"\d{6,}-((vectors|whitening)\.safetensors|faiss\.index|items\.parquet|bad_pictures\.csv)")
_SEAL = "sha256: "


class IndexDamagedError(DataError):
    """A file of an index is not what it was when it was written."""


@dataclass(frozen=True)
class CheckedFile:
    """A file of an index and its content, which has the digest that `index.yaml` says.

    Attributes:
        path: The file.
        content: Its bytes, mapped: what is read here is what was checked.
    """

    path: Path
    content: memoryview


class IndexFolder:
    """One index on disk.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether an index is there."""
        return (self.path / DESCRIPTION_FILE).is_file()

    def read(self) -> dict[str, Any]:
        """Reads `index.yaml`, whose last line is the digest of all before it.

        Raises:
            OptionError: There is no index.
            IndexDamagedError: The file is not as it was written.
            DataError: A newer version wrote it.
        """
        path = self.path / DESCRIPTION_FILE
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise OptionError(f"{self.path}: there is no index; make one with `vggtransfer index build`") from None
        described, mark, digest = content.rpartition(_SEAL.encode())
        if not mark or digest != f"{hashlib.sha256(described).hexdigest()}\n".encode():
            raise IndexDamagedError(f"{path} was changed after it was written; build the index again")
        description: dict[str, Any] = yaml.safe_load(described)
        if description["format"] != FORMAT:
            raise DataError(f"{path} has format {description['format']}, this version reads {FORMAT}")
        return description

    def check(self, description: Mapping[str, Any]) -> dict[str, CheckedFile]:
        """Maps the files of an index, by role, after comparing each with its digest.

        Raises:
            IndexDamagedError: One is missing or differs.
        """
        return {role: self._checked(entry) for role, entry in description["files"].items()}

    def read_and_check(self) -> tuple[dict[str, Any], dict[str, CheckedFile]]:
        """Reads `index.yaml` and maps its files; see `read` and `check`."""
        while True:
            description = self.read()
            try:
                return description, self.check(description)
            except IndexDamagedError:
                # Unless a change has replaced and removed them in between.
                if self.read()["generation"] == description["generation"]:
                    raise

    def _checked(self, entry: Mapping[str, Any]) -> CheckedFile:
        path = self.path / entry["name"]
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
        except OSError as error:
            raise IndexDamagedError(f"{path} cannot be read: {error.strerror}; build the index again") from error
        if size != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise IndexDamagedError(f"{path} is not what index.yaml says (SHA-256 differs); build the index again")
        return CheckedFile(path, content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from changing the index; the lock goes with the process.

        Raises:
            OptionError: Another one is at it, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK_FILE, timeout=_SECONDS_TO_WAIT)
            lock.acquire()
        except Timeout:
            raise OptionError(f"{self.path} is being changed by another process; try again when it is done") from None
        except OSError as error:
            raise OptionError(f"{self.path}: cannot write there: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def file(self, generation: int, role: str, suffix: str) -> Path:
        """Where a new file of a generation goes."""
        return self.path / f"{generation:06d}-{role}{suffix}"

    def switch(self, description: Mapping[str, Any]) -> None:
        """Makes a description the index, in one step, and removes what it does not name.

        Call it with the lock held, and with all its files written.
        """
        text = yaml.safe_dump(dict(description), sort_keys=False, allow_unicode=True, width=1000)
        with write_atomically(self.path / DESCRIPTION_FILE) as temporary:
            temporary.write_bytes(text.encode() + f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n".encode())
        self._remove_others({entry["name"] for entry in description["files"].values()})

    def _remove_others(self, named: set[str]) -> None:
        remove_leftovers(self.path)
        for path in self.path.iterdir():
            if _FILE_NAME.fullmatch(path.name) and path.name not in named:
                with suppress(PermissionError):  # Windows: somebody still reads it
                    path.unlink(missing_ok=True)
            elif path.name.startswith(PARTS_PREFIX):
                shutil.rmtree(path, ignore_errors=True)


def file_entry(path: Path) -> dict[str, Any]:
    """What `index.yaml` says of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}


def check_new(path: Path) -> None:
    """Refuses a place for a new index where something else is.

    Raises:
        OptionError: It is a file, or a folder that holds anything but the unfinished parts of an index.
    """
    if path.exists() and not path.is_dir():
        raise OptionError(f"--out {path}: is a file; name a folder")
    if (path / DESCRIPTION_FILE).exists():
        raise OptionError(f"--out {path}: there is an index; bring it up to date with `vggtransfer index sync {path}`")
    if path.is_dir() and any(_is_foreign(entry.name) for entry in path.iterdir()):
        raise OptionError(f"--out {path}: exists and holds something else than an index; name another folder")


def _is_foreign(name: str) -> bool:
    return not (name.startswith((PARTS_PREFIX, ".")) or _FILE_NAME.fullmatch(name))

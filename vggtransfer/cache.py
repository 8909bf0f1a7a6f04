"""Where downloads and scan results are kept, and how a file is written so that nobody ever sees half of it."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Returns the folder for downloads and scan results: `VGGTRANSFER_CACHE`, else the platform's cache folder.

    The folder is not created here; whoever writes into it does (`write_atomically` creates parents).
    """
    chosen = os.environ.get("VGGTRANSFER_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("vggtransfer", appauthor=False))


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, with its suffix; at the end of the block it takes the place of `path`.

    The block must create the file. A kill, an exception or a full disk at any moment leaves the previous `path`
    as it was; an exception also removes the temporary file. Parent folders are created.

    Raises:
        OSError: The folder cannot be written, the disk is full, or the block did not create the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # 50 characters are at most 200 bytes; a name may have 255.
    temporary = path.with_name(f".{path.stem[:50]}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        permissions = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        # Some writers (safetensors) make files that only their owner can read, which a shared folder cannot have.
        temporary.chmod(permissions)
        _flush_to_disk(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say so
        raise
    if os.name == "posix":
        # The rename itself lives in the folder: without this a power cut may bring the old file back.
        _flush_to_disk(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that `write_atomically` left in a folder when its process was killed."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.\d+-[0-9a-f]{8}(\..*)?", path.name):
            path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    # Windows flushes only handles that may write; folders can be opened for reading only.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

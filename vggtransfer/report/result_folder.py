"""The folder for the files of a measurement: looked at before the work, written after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vggtransfer.errors import OptionError, VGGTransferError

# What commands that train or extract leave behind; nothing there may be lost.
_OTHER_RESULTS = ("model.safetensors", "recipe.yaml", "manifest.json")


def check_result_folder(out: Path | None) -> None:
    """Refuses a folder that cannot be written, before hours are spent on what shall go there.

    Raises:
        OptionError: `out` is a file or below one, may not be written, or is where a model was trained.
    """
    if out is None:
        return
    if any((out / name).exists() for name in _OTHER_RESULTS):
        raise OptionError(f"--out {out}: is the folder of a run or of features; name another one")
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OptionError(f"--out {out}: {'' if there == out else f'{there} '}is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OptionError(f"--out {out}: cannot write there: no permission; name another folder")


@contextmanager
def writing_results(folder: Path, *, asked: bool) -> Iterator[None]:
    """Says in one line what cannot be written in this block.

    Args:
        folder: Where it writes.
        asked: Whether the files must be. Otherwise what cannot be written is a warning, and the block ends there.

    Raises:
        OptionError: A file that must be cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if asked:
            raise OptionError(f"--out {folder}: cannot write there: {reason}") from error
        print(f"warning: {folder} is not complete: {reason}", file=sys.stderr)
    except VGGTransferError as error:
        if asked:
            raise
        print(f"warning: {folder} is not complete: {error}", file=sys.stderr)

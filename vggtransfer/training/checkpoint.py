"""The last state of a training run, in one file that is either the old or the new one, never half of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vggtransfer.cache import write_atomically
from vggtransfer.errors import TrainingError

CHECKPOINT_FILE = Path("checkpoint") / "last.pt"


def save_checkpoint(run: Path, state: dict[str, Any], *, resume_from: Path | None = None) -> Path:
    """Writes tensors and plain Python values to `RUN/checkpoint/last.pt`.

    Args:
        run: Run directory.
        state: What to write.
        resume_from: What `--resume` takes, for the error's advice; default: `run`.

    Raises:
        TrainingError: The disk is full or cannot be written; the previous checkpoint is untouched.
    """
    path = run / CHECKPOINT_FILE
    try:
        with write_atomically(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise TrainingError(
            f"cannot write {path}: {reason}; make room, then go on with --resume {resume_from or run}"
        ) from error
    return path


def find_checkpoint(run: Path) -> Path | None:
    """The checkpoint of a run; None if it was killed before the first one and has to begin again."""
    path = run / CHECKPOINT_FILE
    return path if path.is_file() else None


def load_checkpoint(run: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, onto the CPU.

    Args:
        run: Run directory.
        mapped: Leave the tensors in the file until they are used, for a look at the rest.

    Raises:
        TrainingError: It is damaged.
    """
    path = run / CHECKPOINT_FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged file makes torch raise all sorts
        reason = f"{error}".partition("\n")[0] or type(error).__name__
        raise TrainingError(f"{path}: damaged checkpoint ({reason}); start a new run") from error
    return state

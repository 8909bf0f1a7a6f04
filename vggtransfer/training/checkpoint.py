"""The last state of a training run, in one file that is either the old or the new one, never half of it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from vggtransfer.cache import write_atomically
from vggtransfer.errors import TrainingError

CHECKPOINT_FILE = Path("checkpoint") / "last.pt"


def save_checkpoint(run: Path, state: dict[str, Any]) -> Path:
    """Writes tensors and plain Python values to `RUN/checkpoint/last.pt`."""
    path = run / CHECKPOINT_FILE
    with write_atomically(path) as temporary:
        torch.save(state, temporary)
    return path


def has_checkpoint(run: Path) -> bool:
    """False if the run was killed before its first checkpoint: it has to begin again."""
    return (run / CHECKPOINT_FILE).is_file()


def load_checkpoint(run: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, onto the CPU.

    Raises:
        TrainingError: It is damaged.
    """
    path = run / CHECKPOINT_FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise TrainingError(f"{path}: damaged checkpoint ({str(error).splitlines()[0]})") from error
    return state

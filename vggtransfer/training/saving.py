"""What a run writes while it trains, the best model and the last checkpoint: not oftener than it can afford."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from vggtransfer.training.checkpoint import save_checkpoint

_MOST_TIME = 0.05  # of a run may go into writing after its epochs


class Saving:
    """The files of a run that grow with its model.

    Epochs on maps of a frozen part may take less time than writing the model and all that is needed to resume. So after
    an epoch both are written if that adds no more than 5 % to the time since they were written last; what a kill costs
    then is at most twenty times as long as it takes to write them. The first epoch and the last one are always written.

    Args:
        run: Run directory.
        save_model: Writes a model as the best one so far; None if no epoch is preferred.
        resume_from: What `--resume` takes, for the error's advice.
    """

    def __init__(self, run: Path, *, save_model: Callable[[Any], None] | None, resume_from: Path) -> None:
        self._run, self._save_model, self._resume_from = run, save_model, resume_from
        self._best: nn.Module | None = None
        self._best_is_new = False
        self._due_from = 0.0

    def remember_best(self, model: nn.Module) -> None:
        """Copies the best model so far, to be written before the next checkpoint."""
        if self._save_model is None:
            return
        if self._best is None:
            self._best = copy.deepcopy(model).cpu()
        else:
            self._best.load_state_dict(model.state_dict())
        self._best_is_new = True

    def is_due(self) -> bool:
        """Whether the end of an epoch is to be written now."""
        return time.monotonic() >= self._due_from

    def write(self, state: dict[str, Any]) -> None:
        """Writes the best model, if it is a new one, and then the checkpoint, so that it never speaks of another.

        Raises:
            TrainingError: The disk is full or cannot be written; the previous files are untouched.
        """
        began = time.monotonic()
        self.write_best()
        save_checkpoint(self._run, state, resume_from=self._resume_from)
        if state["progress"]["epoch"]:
            now = time.monotonic()
            self._due_from = now + (now - began) / _MOST_TIME

    def write_best(self) -> None:
        """Writes the best model if it has not been written yet."""
        if self._save_model is not None and self._best_is_new:
            self._save_model(self._best)
            self._best_is_new = False

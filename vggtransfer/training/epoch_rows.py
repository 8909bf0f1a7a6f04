"""What an epoch tells: figures while it runs, and its row in metrics.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vggtransfer.training.contract import EpochRow, Measure, Progress
from vggtransfer.training.learner import StepResult


def running_figures(result: StepResult, sums: Sequence[float], *, measure: Measure | None) -> str:
    """Returns the loss of the last step, and measure and speed of the epoch so far, in one line.

    Args:
        result: Of the step.
        sums: See `Progress`.
        measure: What the second of them sums up, if anything.
    """
    _, measured, seen, seconds = sums
    shown = "" if measure is None else f"{measure.shown(measured / seen)}  "
    return f"loss {result.loss / result.seen:.3f}  {shown}{seen / seconds:.0f} images/s"


def epoch_row(
    progress: Progress,
    *,
    steps: int,
    policy: str,
    learning_rate: float,
    measure: Measure | None,
    loss: float,
    scores: Mapping[str, float],
) -> EpochRow:
    """Returns the row of the epoch that `progress` has just gone through.

    Args:
        progress: With the sums of all its steps.
        steps: Optimizer steps per epoch.
        policy: Freezing policy.
        learning_rate: The highest of all layers.
        measure: What the second of the sums is of, if anything.
        loss: Of the validation.
        scores: Of the validation, by name.
    """
    total, measured, seen, seconds = progress.sums
    return {
        "epoch": progress.epoch + 1,
        "step": (progress.epoch + 1) * steps,
        "unfreeze": policy,
        "learning_rate": learning_rate,
        "train_loss": total / seen,
        **({} if measure is None else {f"train_{measure.name}": measured / seen}),
        "val_loss": loss,
        **{f"val_{name}": score for name, score in scores.items()},
        "seconds": round(seconds, 2),
        "images_per_second": round(seen / seconds, 1),
    }

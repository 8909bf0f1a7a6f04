"""What a training run prints: what trains, on what, and how each epoch went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from vggtransfer.encoder.freezing import freeze_report
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.training.contract import EpochRow, Measure
from vggtransfer.training.session import Session


def print_freezing(encoder: VGGEncoder, head: nn.Module, *, name: str = "head") -> None:
    """Prints where the weights came from, and a table of what of them trains.

    Args:
        encoder: With its policy of the first epoch.
        head: What is on top of it; all of it trains.
        name: What it is called.
    """
    print(f"{encoder.architecture.name}, weights: {encoder.origin}")
    table = Table("part", title=f"unfreeze: {encoder.unfreeze_policy}", title_justify="left")
    for heading in ("parameters", "trainable", "BatchNorm", "bytes"):
        table.add_column(heading, justify="right")
    for row in freeze_report(encoder):
        table.add_row(row.block, f"{row.parameters:,}", f"{row.trainable:,}", row.batch_norm, f"{row.bytes:,}")
    parameters = [parameter.numel() for parameter in head.parameters()]
    table.add_row(name, f"{sum(parameters):,}", f"{sum(parameters):,}", "-", f"{4 * sum(parameters):,}")
    Console().print(table)


def print_schedules(schedules: Sequence[Sequence[tuple[int, str]]], *, epochs: int, warmup_epochs: float) -> None:
    """Prints what changes on the way, and what a run of so many epochs will not reach.

    Args:
        schedules: Each a list of (first epoch, from 0; what holds from there on).
        epochs: Of the run.
        warmup_epochs: Of the learning rate.
    """
    for schedule in schedules:
        if len(schedule) > 1:
            print(
                f"{schedule[0][1]}, then", ", ".join(f"{value} from epoch {start + 1}" for start, value in schedule[1:])
            )
        if unreached := [value for start, value in schedule if start >= epochs]:
            print(f"warning: {', '.join(unreached)} will not be reached: the run ends after epoch {epochs}")
    if warmup_epochs > epochs:
        print(f"warning: the warm-up of {warmup_epochs:g} epochs is longer than the run; no rate reaches its peak")


def print_machine(run: Path, *, precision: torch.dtype, session: Session) -> None:
    """Prints what trains, and where it writes."""
    kind = str(precision).removeprefix("torch.")
    print(f"{session.processes} x {session.device.type}, {kind}; writing to {run}")


def epoch_reporter(
    run: Path, *, epochs: int, tensorboard: bool, training: Measure | None, validation: Measure | None
) -> Callable[[EpochRow], None]:
    """Returns what to do with each epoch's row: print it, and write it to TensorBoard on request.

    Args:
        run: Run directory.
        epochs: Of the run.
        tensorboard: Whether to write its events.
        training: What is told of the training beside the loss.
        validation: The same of the validation.
    """
    writer: Any = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(run / "tensorboard"))

    def of(split: str, measure: Measure | None, row: EpochRow) -> str:
        shown = "" if measure is None else f" {measure.shown(float(row[f'{split}_{measure.name}']))}"
        return f"{split} loss {row[f'{split}_loss']:.4f}{shown}"

    def report(row: EpochRow) -> None:
        print(
            f"epoch {row['epoch']:>3}/{epochs}  [{row['unfreeze']}]  "
            f"{of('train', training, row)}   {of('val', validation, row)}   {row['images_per_second']:.0f} images/s",
            flush=True,
        )
        if writer is not None:
            for name, value in row.items():
                if name not in ("epoch", "step", "unfreeze"):
                    writer.add_scalar(name, value, row["step"])
            writer.flush()

    return report


def reason_of(error: Exception, run: Path) -> str:
    """Returns why something failed, in one line: torch takes many to say that there is no memory left."""
    if isinstance(error, OSError):
        return f"{error.filename or run}: {error.strerror or error}"
    return (str(error) or type(error).__name__).splitlines()[0]

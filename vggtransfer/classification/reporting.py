"""What a fine-tuning run tells: before it starts, after each epoch, and at its end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.data.folders import Sample
from vggtransfer.data.scan import BadPicture, write_bad_pictures
from vggtransfer.encoder.freezing import freeze_report
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import VGGTransferError
from vggtransfer.features.cached_stage import CachedStage
from vggtransfer.printable import printable
from vggtransfer.training.contract import EpochRow, FitOptions, Progress
from vggtransfer.training.run_directory import write_environment, write_rows
from vggtransfer.training.session import Session


def announce(
    run: Path,
    *,
    model: VGGClassifier,
    pictures: LabelledPictures,
    augmentation: str,
    sizes: Sequence[tuple[int, int]],
    options: FitOptions,
    session: Session,
) -> None:
    """Prints data, freezing and hardware, and writes what is known before training to the run directory.

    `augmentation` is the name of the preset or file; `sizes` are the sides of the training pictures, each with the
    epoch (from 0) from which on it holds.
    """
    if pictures.bad:
        write_bad_pictures(run / "bad_images.csv", pictures.bad)
    write_rows(run / "pictures.csv", pictures.rows())
    write_environment(run, device=session.device, processes=session.processes)

    print(
        f"{len(pictures.classes)} classes, {len(pictures.train)} training and {len(pictures.val)} validation pictures"
        + (f"; {len(pictures.bad)} unreadable, listed in {run / 'bad_images.csv'}" if pictures.bad else "")
        + f"; augmentation: {printable(augmentation)}"
    )
    for warning in pictures.warnings:
        print(f"warning: {printable(warning)}")
    encoder = model.encoder
    print(f"{encoder.architecture.name}, weights: {encoder.origin}")
    table = Table("part", title=f"unfreeze: {encoder.unfreeze_policy}", title_justify="left")
    for heading in ("parameters", "trainable", "BatchNorm", "bytes"):
        table.add_column(heading, justify="right")
    for row in freeze_report(encoder):
        table.add_row(row.block, f"{row.parameters:,}", f"{row.trainable:,}", row.batch_norm, f"{row.bytes:,}")
    head = [parameter.numel() for parameter in model.head.parameters()]
    table.add_row("head", f"{sum(head):,}", f"{sum(head):,}", "-", f"{4 * sum(head):,}")
    Console().print(table)
    policies = [(stage.start, stage.value) for stage in options.stages]
    for schedule in (policies, [(start, f"{side} pixels") for start, side in sizes]):
        if len(schedule) > 1:
            print(
                f"{schedule[0][1]}, then", ", ".join(f"{value} from epoch {start + 1}" for start, value in schedule[1:])
            )
        if unreached := [value for start, value in schedule if start >= options.epochs]:
            print(f"warning: {', '.join(unreached)} will not be reached: the run ends after epoch {options.epochs}")
    if options.warmup_epochs > options.epochs:
        print(
            f"warning: the warm-up of {options.warmup_epochs:g} epochs is longer than the run; no rate reaches its peak"
        )
    kind = str(options.precision).removeprefix("torch.")
    print(f"{session.processes} x {session.device.type}, {kind}; writing to {run}")


def epoch_reporter(run: Path, *, epochs: int, tensorboard: bool) -> Callable[[EpochRow], None]:
    """Returns what to do with each epoch's row: print it, and write it to TensorBoard on request."""
    writer: Any = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(run / "tensorboard"))

    def report(row: EpochRow) -> None:
        print(
            f"epoch {row['epoch']:>3}/{epochs}  [{row['unfreeze']}]  "
            f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.1%}   "
            f"val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.1%}   "
            f"{row['images_per_second']:.0f} images/s",
            flush=True,
        )
        if writer is not None:
            for name, value in row.items():
                if name not in ("epoch", "step", "unfreeze"):
                    writer.add_scalar(name, value, row["step"])
            writer.flush()

    return report


def conclude(
    run: Path,
    *,
    model: VGGClassifier,
    pictures: LabelledPictures,
    stage: CachedStage | None,
    progress: Progress,
    options: FitOptions,
    precision: Precision,
) -> None:
    """Draws curves and confusion matrix of the best model, writes the report, and prints how to go on in any case.

    The model is on its device. Whatever happens to pictures or disk meanwhile, the training is done and its model
    saved: what cannot be drawn or written is left out with a warning. Where there is a stage, its maps are scored in
    place of the pictures.
    """
    from vggtransfer.classification.report import REPORT_FILE  # not needed, and not waited for, before the end

    written = ["model.safetensors", "metrics.csv", "recipe.yaml"]
    try:
        _draw(
            run,
            written,
            model=model,
            pictures=pictures,
            stage=stage,
            progress=progress,
            options=options,
            precision=precision,
        )
    except (OSError, VGGTransferError, ValueError, RuntimeError, MemoryError) as error:
        print(f"warning: figures and report are not complete: {_reason(error, run)}")
    finally:
        report = f"report: {run / REPORT_FILE}\n" if REPORT_FILE in written else ""
        print(
            f"best validation accuracy {progress.best_accuracy:.2%} in epoch {progress.best_epoch + 1}\n"
            f"wrote {run}/: {', '.join(name for name in written if name != REPORT_FILE)}\n{report}next:\n"
            f"  vggtransfer evaluate --model {shlex.quote(str(run))} --data {shlex.quote(str(pictures.root))}\n"
            f"  vggtransfer predict --model {shlex.quote(str(run))} PICTURES...\n"
            f"  vggtransfer explain --model {shlex.quote(str(run))} PICTURES..."
        )


def _draw(
    run: Path,
    written: list[str],
    *,
    model: VGGClassifier,
    pictures: LabelledPictures,
    stage: CachedStage | None,
    progress: Progress,
    options: FitOptions,
    precision: Precision,
) -> None:
    """Draws and writes what `conclude` promises, and adds the name of each file to `written` as soon as it is there."""
    from vggtransfer.classification.figures import draw_confusion, draw_curves
    from vggtransfer.classification.metrics import compute_metrics
    from vggtransfer.classification.report import write_training_report

    draw_curves(progress.history, run / "curves.png")
    written.append("curves.png")
    probabilities, samples, warnings = _scored(model, pictures, stage, options=options, precision=precision)
    if not samples:
        return
    pictures = replace(pictures, warnings=(*pictures.warnings, *warnings))
    labels = torch.tensor([sample.label for sample in samples])
    scores = compute_metrics(probabilities, labels, pictures.classes)
    draw_confusion(scores.confusion, pictures.classes, run / "confusion.png")
    written.append("confusion.png")
    report = write_training_report(
        run,
        model=model,
        pictures=pictures,
        samples=samples,
        probabilities=probabilities,
        scores=scores,
        progress=progress,
        options=options,
        precision=precision,
        stage=stage,
    )
    written.append(report.name)


def _scored(
    model: VGGClassifier,
    pictures: LabelledPictures,
    stage: CachedStage | None,
    *,
    options: FitOptions,
    precision: Precision,
) -> tuple[Tensor, list[Sample], list[str]]:
    """Returns probabilities of the validation pictures, those that could be scored, and warnings about the others."""
    from vggtransfer.classification.inference import score_maps, score_pictures

    if stage is not None:
        scores = score_maps(model, stage, batch_size=options.batch_size, precision=precision)
        return scores, list(pictures.val), []
    gone: list[BadPicture] = []
    scores, _ = score_pictures(
        model,
        pictures.val,
        batch_size=options.batch_size,
        precision=precision,
        workers=options.workers,
        on_bad=gone.append,
    )
    warnings = [
        f"{picture.path} cannot be read any more and is not among the scores: {picture.reason}" for picture in gone
    ]
    for warning in warnings:
        print(f"warning: {printable(warning)}")
    unread = {picture.path for picture in gone}
    return scores, [sample for sample in pictures.val if sample.path not in unread], warnings


def _reason(error: Exception, run: Path) -> str:
    """One line: torch takes many to say that there is no memory left."""
    if isinstance(error, OSError):
        return f"{error.filename or run}: {error.strerror or error}"
    return (str(error) or type(error).__name__).splitlines()[0]

"""What a fine-tuning run tells before it starts and at its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.data.scan import BadPicture, write_bad_pictures
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import VGGTransferError
from vggtransfer.printable import printable
from vggtransfer.training.announcement import print_freezing, print_machine, print_schedules, reason_of
from vggtransfer.training.contract import FitOptions, Progress
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
    print_freezing(model.encoder, model.head)
    policies = [(stage.start, stage.value) for stage in options.stages]
    print_schedules(
        [policies, [(start, f"{side} pixels") for start, side in sizes]],
        epochs=options.epochs,
        warmup_epochs=options.warmup_epochs,
    )
    print_machine(run, precision=options.precision, session=session)


def conclude(
    run: Path,
    *,
    model: VGGClassifier,
    pictures: LabelledPictures,
    progress: Progress,
    options: FitOptions,
    precision: Precision,
) -> None:
    """Draws curves and confusion matrix of the best model, writes the report, and prints how to go on in any case.

    The model is on its device. Whatever happens to pictures or disk meanwhile, the training is done and its model
    saved: what cannot be drawn or written is left out with a warning.
    """
    from vggtransfer.classification.report import REPORT_FILE  # not needed, and not waited for, before the end

    written = ["model.safetensors", "metrics.csv", "recipe.yaml"]
    try:
        _draw(run, written, model=model, pictures=pictures, progress=progress, options=options, precision=precision)
    except (OSError, VGGTransferError, ValueError, RuntimeError, MemoryError) as error:
        print(f"warning: figures and report are not complete: {reason_of(error, run)}")
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
    progress: Progress,
    options: FitOptions,
    precision: Precision,
) -> None:
    """Draws and writes what `conclude` promises, and adds the name of each file to `written` as soon as it is there."""
    from vggtransfer.classification.figures import draw_confusion, draw_curves
    from vggtransfer.classification.inference import score_pictures
    from vggtransfer.classification.metrics import compute_metrics
    from vggtransfer.classification.report import write_training_report

    draw_curves(progress.history, run / "curves.png")
    written.append("curves.png")
    gone: list[BadPicture] = []
    probabilities, labels = score_pictures(
        model,
        pictures.val,
        batch_size=options.batch_size,
        precision=precision,
        workers=options.workers,
        on_bad=gone.append,
    )
    for picture in gone:
        warning = f"{picture.path} cannot be read any more and is not among the scores: {picture.reason}"
        print(f"warning: {printable(warning)}")
        pictures = replace(pictures, warnings=(*pictures.warnings, warning))
    unread = {picture.path for picture in gone}
    samples = [sample for sample in pictures.val if sample.path not in unread]
    if not samples:
        return
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
    )
    written.append(report.name)

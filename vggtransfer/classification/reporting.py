"""What a fine-tuning run tells before it starts and at its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.data.folders import Sample
from vggtransfer.data.scan import BadPicture, write_bad_pictures
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import VGGTransferError
from vggtransfer.features.cached_stage import CachedStage
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

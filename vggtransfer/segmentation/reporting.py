"""What a run of `segment` tells before it starts and at its end."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from vggtransfer.data.masked_transforms import MaskedTransform
from vggtransfer.data.scan import BadPicture, write_bad_pictures
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import VGGTransferError
from vggtransfer.printable import printable
from vggtransfer.segmentation.model import TrainedSegmenter
from vggtransfer.segmentation.pictures import MaskedPictures
from vggtransfer.segmentation.segmenter import Segmenter
from vggtransfer.training.announcement import print_freezing, print_machine, print_schedules, reason_of
from vggtransfer.training.contract import FitOptions, Progress
from vggtransfer.training.run_directory import write_environment, write_rows
from vggtransfer.training.session import Session


def announce(
    run: Path,
    *,
    model: Segmenter,
    pictures: MaskedPictures,
    augmentation: MaskedTransform,
    options: FitOptions,
    session: Session,
) -> None:
    """Prints data, freezing and hardware, and writes what is known before training to the run directory."""
    if pictures.bad:
        write_bad_pictures(run / "bad_images.csv", pictures.bad)
    write_rows(run / "pictures.csv", pictures.rows())
    write_environment(run, device=session.device, processes=session.processes)
    coding = pictures.coding
    shown = ", ".join(coding.names[:12]) + (" ..." if len(coding.names) > 12 else "")
    height, width = augmentation.crop
    print(
        f"{coding.task} masks of {len(coding.names)} {'class' if len(coding.names) == 1 else 'classes'} "
        f"({printable(shown)}), read as {pictures.layout}\n"
        f"{len(pictures.train)} training and {len(pictures.val)} validation pictures"
        + (f"; {len(pictures.bad)} files left out, listed in {run / 'bad_images.csv'}" if pictures.bad else "")
        + f"; crops of {width} x {height}, augmentation: {printable(augmentation.name)}"
    )
    for warning in pictures.warnings:
        print(f"warning: {printable(warning)}")
    print_freezing(model.encoder, model.decoder, name="decoder")
    print_schedules(
        [[(stage.start, stage.value) for stage in options.stages]],
        epochs=options.epochs,
        warmup_epochs=options.warmup_epochs,
    )
    print_machine(run, precision=options.precision, session=session)


def conclude(
    run: Path,
    *,
    trained: TrainedSegmenter,
    device: torch.device,
    pictures: MaskedPictures,
    progress: Progress,
    options: FitOptions,
    precision: Precision,
) -> None:
    """Measures the best model once more, writes the report, and prints how to go on in any case.

    Whatever happens to pictures or disk meanwhile, the training is done and its model saved: what cannot be drawn or
    written is left out with a warning.
    """
    from vggtransfer.segmentation.report import REPORT_FILE, write_training_report

    report = ""
    try:
        gone: list[BadPicture] = []
        write_training_report(
            run,
            trained=trained,
            device=device,
            pictures=pictures,
            progress=progress,
            options=options,
            precision=precision,
            gone=gone,
        )
        for picture in gone:
            print(f"warning: {printable(picture.path)} cannot be read any more: {printable(picture.reason)}")
        report = f"report: {run / REPORT_FILE}\n"
    except (OSError, VGGTransferError, ValueError, RuntimeError, MemoryError) as error:
        print(f"warning: the report is not complete: {reason_of(error, run)}")
    finally:
        quoted, data = shlex.quote(str(run)), shlex.quote(str(pictures.root))
        print(
            f"best validation mean IoU {progress.best_accuracy:.2%} in epoch {progress.best_epoch + 1}\n"
            f"wrote {run}/: model.safetensors, metrics.csv, recipe.yaml\n{report}next:\n"
            f"  vggtransfer segment-evaluate --model {quoted} --data {data}\n"
            f"  vggtransfer segment-predict --model {quoted} PICTURES... --out FOLDER"
        )

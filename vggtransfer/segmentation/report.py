"""The report of a run or a measurement: one HTML page with scores, classes, overlays and the worst pictures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import vggtransfer
from vggtransfer.data.scan import BadPicture
from vggtransfer.encoder.precision import Precision
from vggtransfer.recipe_files import read_recipe
from vggtransfer.report.page import percent, write_page
from vggtransfer.report.pictures import photograph_url
from vggtransfer.report.run_facts import (
    bad_pictures_content,
    environment_content,
    freezing_table,
    readable,
    recipe_rows,
)
from vggtransfer.report.run_history import duration, history_charts
from vggtransfer.segmentation.inference import Painter
from vggtransfer.segmentation.mask_coding import MaskCoding, hexadecimal
from vggtransfer.segmentation.measuring import DrawnPicture, Measured, measure
from vggtransfer.segmentation.model import TrainedSegmenter
from vggtransfer.segmentation.pictures import MaskedPictures
from vggtransfer.training.contract import FitOptions, Progress
from vggtransfer.training.identity import fingerprint
from vggtransfer.training.run_directory import environment, read_environment

REPORT_FILE = "report.html"
_PACKAGE = "vggtransfer.segmentation"
_MOST_CONFUSIONS = 10


def write_training_report(
    run: Path,
    *,
    trained: TrainedSegmenter,
    device: torch.device,
    pictures: MaskedPictures,
    progress: Progress,
    options: FitOptions,
    precision: Precision,
    gone: list[BadPicture],
) -> Path:
    """Measures the best model on the validation pictures, writes `RUN/report.html` and returns its path.

    Args:
        run: Run directory with `recipe.yaml` and `environment.json`.
        trained: The best model.
        device: Where to compute.
        pictures: All pictures of the run.
        progress: How the training went.
        options: How it was asked to go.
        precision: Of the computation.
        gone: Gets the pictures that cannot be read any more.

    Raises:
        OSError: The file cannot be written.
    """
    from vggtransfer.segmentation.recipe import segment

    painter = Painter(trained, device=device, precision=precision)
    measured = measure(painter, pictures.val, pictures.coding, title="drawing the report")
    gone += measured.bad
    history, model = progress.history, trained.model
    stages = [(stage.start, stage.value) for stage in options.stages if stage.start < max(1, len(history))]
    headings, rows = freezing_table(model.encoder, model.decoder, stages=stages, epochs=len(history), name="decoder")
    recipe = read_recipe(run / "recipe.yaml")
    quoted, data = shlex.quote(str(run)), shlex.quote(str(pictures.root))
    content = {
        "training": {
            "best_epoch": progress.best_epoch + 1,
            "epochs": len(history),
            "epochs_planned": options.epochs,
            "duration": duration(sum(float(row["seconds"]) for row in history)),
            "train_pictures": len(pictures.train),
            "val_pictures": len(pictures.val),
            "fingerprint": fingerprint(pictures.rows()),
            "headings": headings,
            "rows": rows,
            "charts": history_charts(
                history,
                {
                    "Loss": {"training": "train_loss", "validation": "val_loss"},
                    "Mean IoU": {"validation": "val_mean_iou"},
                    "Pixel accuracy": {"training": "train_pixel_accuracy", "validation": "val_pixel_accuracy"},
                },
                best=progress.best_epoch,
            ),
            "stages": [(start + 1, value) for start, value in stages],
            "recipe_rows": recipe_rows(segment, recipe),
            "seed": recipe["seed"],
        },
        "name": pictures.root.resolve().name,
        "place": run,
        "folder": pictures.root,
        "split": "validation",
        "warnings": pictures.warnings,
        "commands": [
            ("The same training again, in a new run directory:", f"vggtransfer segment --config {quoted}/recipe.yaml"),
            ("Measure the model:", f"vggtransfer segment-evaluate --model {quoted} --data {data}"),
            ("Use it:", f"vggtransfer segment-predict --model {quoted} PICTURES... --out FOLDER"),
        ],
        **_pixels_content(pictures),
        **bad_pictures_content(pictures.bad, pictures.root),
        **environment_content(read_environment(run)),
    }
    return _write(run / REPORT_FILE, content, trained=trained, measured=measured, root=pictures.root)


def write_evaluation_report(
    out: Path,
    *,
    trained: TrainedSegmenter,
    device: torch.device,
    model: Path,
    pictures: MaskedPictures,
    measured: Measured,
    split: str,
    views: str,
    trained_on: int | None,
    command: Sequence[str],
) -> Path:
    """Writes `OUT/report.html` and returns its path.

    Args:
        out: Folder.
        trained: The model.
        device: Where it was measured.
        model: Where it is from.
        pictures: All pictures that were looked at.
        measured: What was found.
        split: What of them was measured.
        views: How the model looked at them, in words; may be empty.
        trained_on: How many of them are in its training set; None if that is not known.
        command: Words of the command that measures the same.

    Raises:
        OSError: The file cannot be written.
    """
    content = {
        "training": None,
        "name": pictures.root.resolve().name,
        "place": model,
        "folder": pictures.root,
        "split": split,
        "views": views,
        "trained_on": trained_on,
        "warnings": pictures.warnings,
        "commands": [("The same measurement again:", shlex.join(command))],
        **_pixels_content(pictures),
        **bad_pictures_content((*pictures.bad, *measured.bad), pictures.root),
        **environment_content([environment(device=device, processes=1)]),
    }
    return _write(out / REPORT_FILE, content, trained=trained, measured=measured, root=pictures.root)


def _write(
    path: Path, content: Mapping[str, object], *, trained: TrainedSegmenter, measured: Measured, root: Path
) -> Path:
    page = {
        **content,
        "architecture": trained.model.encoder.architecture.name,
        "origin": trained.model.encoder.origin,
        "decoder": trained.decoder.name,
        "image_size": trained.image_size,
        "task": trained.coding.task,
        "scores": measured.scores,
        "boundary_f1": _mean(measured.boundary_f1),
        "pictures": len(measured.rows),
        "class_rows": _class_rows(trained.coding, measured),
        "pairs": _confusions(trained.coding, measured),
        "worst": [_card(one, root) for one in measured.worst],
        "ordinary": [_card(one, root) for one in measured.ordinary],
        "version": vggtransfer.__version__,
        "written": readable(datetime.now(UTC).isoformat()),
    }
    write_page(path, "report.html", page, package=_PACKAGE)
    return path


def _class_rows(coding: MaskCoding, measured: Measured) -> list[dict[str, Any]]:
    """The classes with their scores, the worst first; those that do not occur last and without."""
    counts = measured.counts.double()
    pixels = counts.sum(dim=1) if coding.task == "multiclass" else counts[:, 1].sum(dim=1)
    every = (counts.sum() if coding.task == "multiclass" else counts[0].sum()).clamp_min(1)
    rows = [
        {
            "name": name,
            "colour": hexadecimal(colour),
            "iou": iou,
            "dice": dice,
            "accuracy": 0.0 if math.isnan(accuracy) else accuracy,
            "boundary_f1": 0.0 if math.isnan(boundary) else boundary,
            "share": (pixels[number] / every).item(),
            "occurs": not math.isnan(iou),
        }
        for number, (name, colour, iou, dice, accuracy, boundary) in enumerate(
            zip(
                coding.names,
                coding.colours,
                measured.scores.iou,
                measured.scores.dice,
                measured.scores.accuracy,
                measured.boundary_f1,
                strict=True,
            )
        )
    ]
    return sorted(rows, key=lambda row: (not row["occurs"], row["iou"]))


def _confusions(coding: MaskCoding, measured: Measured) -> list[tuple[str, str, str, str]]:
    """The most frequent ones, where each pixel has one class: (true class, painted as, part of the class, of all)."""
    if coding.task != "multiclass":
        return []
    counts = measured.counts.double()
    wrong = counts - counts.diagonal().diag()
    places = wrong.flatten().argsort(descending=True, stable=True)[:_MOST_CONFUSIONS].tolist()
    pairs = [divmod(place, len(coding.names)) for place in places]
    return [
        (
            coding.names[true],
            coding.names[taken],
            percent((wrong[true, taken] / counts[true].sum()).item()),
            percent((wrong[true, taken] / counts.sum()).item()),
        )
        for true, taken in pairs
        if wrong[true, taken] > 0
    ]


def _pixels_content(pictures: MaskedPictures) -> dict[str, Any]:
    """How many pictures show each class, by split."""
    splits = [(name, getattr(pictures, name)) for name in ("train", "val", "test") if getattr(pictures, name)]
    titles = {"train": "training", "val": "validation", "test": "test"}
    return {
        "count_headings": ["class", *(f"{titles[name]} pictures with it" for name, _ in splits)],
        "count_rows": [
            [
                name,
                *(sum(1 for sample in samples if pictures.pixels[sample.path][number]) for _, samples in splits),
            ]
            for number, name in enumerate(pictures.coding.names)
        ],
    }


def _card(one: DrawnPicture, root: Path) -> dict[str, Any]:
    path = one.path.relative_to(root) if one.path.is_relative_to(root) else one.path
    return {
        "name": path,
        "mean_iou": one.mean_iou,
        "pixel_accuracy": one.pixel_accuracy,
        "pictures": [photograph_url(pixels) for pixels in (one.truth, one.painted, one.wrong)],
    }


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0

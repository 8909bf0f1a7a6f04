"""The tables and files of `vggtransfer segment-evaluate`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from vggtransfer.cache import write_atomically
from vggtransfer.data.scan import write_bad_pictures
from vggtransfer.printable import printable
from vggtransfer.report.console import plain_table, print_table
from vggtransfer.report.json_output import json_text, print_json
from vggtransfer.training.run_directory import write_environment

if TYPE_CHECKING:
    from vggtransfer.segmentation.evaluation import SegmentEvaluationResult


def print_tables(result: SegmentEvaluationResult, form: Literal["table", "json"]) -> None:
    """Prints overall scores and scores by class to standard output, or all of it as JSON."""
    if form == "json":
        print_json(result.as_dict())
        sys.stdout.flush()
        return
    scores = result.scores
    print(f"{printable(result.model)} on {result.pictures:,} pictures of {printable(result.data)} ({result.split})")
    overall = plain_table("overall", "score", numbers=("score",))
    for name, value in (
        ("mean IoU", scores.mean_iou),
        ("mean Dice", scores.mean_dice),
        ("pixel accuracy", scores.pixel_accuracy),
        ("mean accuracy of the classes", scores.mean_accuracy),
        ("IoU weighted by frequency", scores.weighted_iou),
    ):
        overall.add_row(name, _shown(value))
    print_table(overall)
    columns = ("IoU", "Dice", "accuracy", "boundary F1")
    table = plain_table("class", *columns, numbers=columns)
    for name, *values in zip(result.classes, scores.iou, scores.dice, scores.accuracy, result.boundary_f1, strict=True):
        table.add_row(printable(name), *map(_shown, values))
    print_table(table)
    if result.bad:
        print(f"left out: {len(result.bad)} files that cannot be read or do not fit")
    sys.stdout.flush()


def write_evaluation(result: SegmentEvaluationResult, folder: Path, *, device: torch.device) -> None:
    """Writes `evaluation.json`, `bad_images.csv` and `environment.json`.

    Raises:
        OSError: The folder cannot be written.
    """
    with write_atomically(folder / "evaluation.json") as temporary:
        temporary.write_text(json_text(result.as_dict()) + "\n", encoding="utf-8")
    write_bad_pictures(folder / "bad_images.csv", result.bad)
    write_environment(folder, device=device, processes=1)


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"

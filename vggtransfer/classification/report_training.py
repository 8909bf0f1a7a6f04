"""What a report says about a training: its data, what was frozen, and how it went."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.errors import OptionError
from vggtransfer.recipe_files import read_recipe
from vggtransfer.report.run_facts import freezing_table, recipe_rows
from vggtransfer.report.run_history import duration, history_charts
from vggtransfer.training.contract import FitOptions, Progress
from vggtransfer.training.identity import fingerprint


def training_content(
    model: VGGClassifier,
    pictures: LabelledPictures,
    progress: Progress,
    options: FitOptions,
    *,
    recipe: Mapping[str, object],
) -> dict[str, Any]:
    """Returns what the sections on training show."""
    from vggtransfer.classification.recipe import finetune

    counts = {split: Counter(sample.label for sample in getattr(pictures, split)) for split in ("train", "val")}
    history = progress.history
    stages = [(stage.start, stage.value) for stage in options.stages if stage.start < max(1, len(history))]
    headings, rows = freezing_table(model.encoder, model.head, stages=stages, epochs=len(history))
    return {
        "train_pictures": len(pictures.train),
        "val_pictures": len(pictures.val),
        "count_rows": [
            (name, counts["train"][label], counts["val"][label]) for label, name in enumerate(pictures.classes)
        ],
        "fewest": min(counts["train"].values()),
        "most": max(counts["train"].values()),
        "fingerprint": fingerprint(pictures.rows()),
        "architecture": model.encoder.architecture.name,
        "origin": model.encoder.origin,
        "head": model.task.head,
        "freeze_headings": headings,
        "freeze_rows": rows,
        "best_epoch": progress.best_epoch + 1,
        "epochs": len(history),
        "epochs_planned": options.epochs,
        "duration": duration(sum(float(row["seconds"]) for row in history)),
        "charts": history_charts(
            history,
            {
                "Loss": {"training": "train_loss", "validation": "val_loss"},
                "Accuracy": {"training": "train_accuracy", "validation": "val_accuracy"},
            },
            best=progress.best_epoch,
        ),
        "stages": [(stage.start + 1, stage.value) for stage in options.stages if stage.start < len(history)],
        "recipe_rows": recipe_rows(finetune, recipe),
    }


def trained_content(model: Path) -> dict[str, Any] | None:
    """Returns what the report of a measurement shows of the training of the model.

    None if its run directory is not there any more, or its recipe cannot be read.

    Args:
        model: Run directory, or the model file in it.
    """
    from vggtransfer.classification.recipe import finetune

    run = model if model.is_dir() else model.parent
    try:
        recipe = read_recipe(run / "recipe.yaml")
    except OptionError:
        return None
    report = run / "report.html"
    return {
        "unfreeze": recipe.get("unfreeze"),
        "recipe": run / "recipe.yaml",
        "report": report if report.is_file() else None,
        "recipe_rows": [(name, value) for name, value, _, changed in recipe_rows(finetune, recipe) if changed],
    }


def training_commands(run: Path, data: Path) -> list[tuple[str, str]]:
    """Commands as (what it does, how it is typed) that repeat the training and go on from it."""
    quoted, folder, recipe = (shlex.quote(str(path)) for path in (run, data, run / "recipe.yaml"))
    return [
        ("The same training again, in a new run directory:", f"vggtransfer finetune --config {recipe}"),
        ("Measure the model:", f"vggtransfer evaluate --model {quoted} --data {folder}"),
        ("Use it:", f"vggtransfer predict --model {quoted} PICTURES..."),
        ("See what it looks at:", f"vggtransfer explain --model {quoted} PICTURES..."),
    ]

"""What a report says about a training: its data, what was frozen, and how it went."""

from __future__ import annotations

import inspect
import itertools
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vggtransfer.classification.model import VGGClassifier
from vggtransfer.classification.pictures import LabelledPictures, fingerprint
from vggtransfer.data.scan import BadPicture
from vggtransfer.encoder.freezing import freeze_report
from vggtransfer.errors import OptionError
from vggtransfer.recipe_files import read_recipe
from vggtransfer.report.charts import LineChart, line_chart
from vggtransfer.training.contract import EpochRow, FitOptions, Progress

_MOST_BAD_PICTURES = 30
_LARGEST_SPREAD = 6.0


def training_content(
    model: VGGClassifier,
    pictures: LabelledPictures,
    progress: Progress,
    options: FitOptions,
    *,
    recipe: Mapping[str, object],
) -> dict[str, Any]:
    """Returns what the sections on training show."""
    counts = {split: Counter(sample.label for sample in getattr(pictures, split)) for split in ("train", "val")}
    history = progress.history
    headings, rows = _freezing(model, options, epochs=len(history))
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
        "duration": _duration(sum(float(row["seconds"]) for row in history)),
        "charts": _charts(history, best=progress.best_epoch),
        "stages": [(stage.start + 1, stage.value) for stage in options.stages if stage.start < len(history)],
        "recipe_rows": _recipe_rows(recipe),
    }


def trained_content(model: Path) -> dict[str, Any] | None:
    """Returns what the report of a measurement shows of the training of the model.

    None if its run directory is not there any more, or its recipe cannot be read.

    Args:
        model: Run directory, or the model file in it.
    """
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
        "recipe_rows": [(name, value) for name, value, _, changed in _recipe_rows(recipe) if changed],
    }


def bad_pictures_content(bad: Sequence[BadPicture], root: Path) -> dict[str, Any]:
    """Returns the pictures that cannot be read, or the first of them."""
    return {
        "bad_count": len(bad),
        "bad_rows": [
            (picture.path.relative_to(root) if picture.path.is_relative_to(root) else picture.path, picture.reason)
            for picture in bad[:_MOST_BAD_PICTURES]
        ],
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


def _freezing(
    model: VGGClassifier, options: FitOptions, *, epochs: int
) -> tuple[list[str], list[tuple[str | int, ...]]]:
    """One row a block and one for the head; one column for each stage of the unfreezing schedule that was reached."""
    encoder = model.encoder
    policy = encoder.unfreeze_policy
    stages = [stage for stage in options.stages if stage.start < max(1, epochs)]
    reports = [freeze_report(encoder.unfreeze(stage.value)) for stage in stages]
    encoder.unfreeze(policy)
    stops = [*(stage.start for stage in stages[1:]), epochs]
    headings = ["part", "parameters"]
    for stage, stop in zip(stages, stops, strict=True):
        span = f"epoch {stop}" if stop <= stage.start + 1 else f"epochs {stage.start + 1} to {stop}"
        headings.append(f"trained in {span} ({stage.value})")
    rows: list[tuple[str | int, ...]] = []
    for blocks in zip(*reports, strict=True):
        trained = [f"{block.trainable:,}" if block.trainable else "frozen" for block in blocks]
        block = blocks[-1]
        rows.append((block.block, f"{block.parameters:,}", *trained, block.batch_norm, _size(block.bytes)))
    head = list(model.head.parameters())
    count, size = sum(one.numel() for one in head), sum(one.numel() * one.element_size() for one in head)
    rows.append(("head", f"{count:,}", *[f"{count:,}"] * len(stages), "-", _size(size)))
    return [*headings, "BatchNorm at the end", "size"], rows


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _charts(history: Sequence[EpochRow], *, best: int) -> list[LineChart]:
    steps = [int(row["epoch"]) for row in history]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in history]

    changes = [
        (row["epoch"] - 0.5, str(row["unfreeze"]))  # type: ignore[operator]
        for before, row in itertools.pairwise(history)
        if before["unfreeze"] != row["unfreeze"]
    ]
    charts = []
    for quantity in ("loss", "accuracy"):
        values = {"training": column(f"train_{quantity}"), "validation": column(f"val_{quantity}")}
        # One epoch gone astray would press all others down to the axis.
        wide = quantity == "loss" and max(map(_spread, values.values())) > _LARGEST_SPREAD
        charts.append(
            line_chart(
                quantity.capitalize() + (" (logarithmic scale)" if wide else ""),
                steps,
                values,
                x_label="epoch",
                percent=quantity == "accuracy",
                logarithmic=wide,
                marks=changes,
                ring=(steps[best], values["validation"][best]) if 0 <= best < len(steps) else None,
            )
        )
    rates = {"the highest of all layers": column("learning_rate")}
    return [*charts, line_chart("Learning rate after the epoch", steps, rates, x_label="epoch", marks=changes)]


def _spread(values: Sequence[float]) -> float:
    """The largest value in units of the median."""
    finite = sorted(value for value in values if math.isfinite(value) and value > 0) or [1.0]
    return finite[-1] / finite[len(finite) // 2]


def _recipe_rows(recipe: Mapping[str, object]) -> list[tuple[str, object, object, bool]]:
    """Each option as (name, value, default, whether they differ), as they are typed on the command line."""
    from vggtransfer.classification.recipe import finetune

    parameters = inspect.signature(finetune).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return [
        (f"--{name.replace('_', '-')}", _typed(value), _typed(defaults.get(name)), value != defaults.get(name))
        for name, value in recipe.items()
        if name not in ("out", "resume")
    ]


def _typed(value: object) -> object:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else value

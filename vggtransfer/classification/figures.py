"""Pictures of a run: learning curves and the confusion matrix, as PNG files.

Only matplotlib's objects, not its pyplot: no window, no state shared with whoever else draws in this process.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vggtransfer.cache import write_atomically

MOST_NAMED_CLASSES = 200
_MOST_ANNOTATED_CLASSES = 20
_LONGEST_NAME = 28

_TRAIN, _VALIDATION, _NEUTRAL, _FRAME = "#5b8db8", "#d1495b", "#6b7280", "#c4c9d1"


def draw_curves(metrics: Path | Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws loss and accuracy of training and validation over epochs.

    Marks the best epoch (the first with the highest validation accuracy) and the epochs from which another freezing
    policy held.

    Args:
        metrics: A run's `metrics.csv` or its rows: per epoch `epoch`, `unfreeze`, `train_loss`, `val_loss`, and
            `train_accuracy` and `val_accuracy` in [0, 1]. Values that are missing, empty or not finite leave a gap.
        path: PNG file to write.
    """
    rows = _read_rows(metrics) if isinstance(metrics, Path) else metrics
    epochs = [_number(row, "epoch") for row in rows]
    figure = Figure(figsize=(11, 4.4), layout="constrained", facecolor="white")
    loss, accuracy = figure.subplots(1, 2)
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split, label, colour in (("train", "training", _TRAIN), ("val", "validation", _VALIDATION)):
            values = [_number(row, f"{split}_{quantity}") for row in rows]
            if any(map(math.isfinite, values)):
                axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker="o", markersize=_dot(rows))
        _style(axes, quantity.capitalize())
        axes.set_xlim(min(epochs, default=1) - 0.5, max(epochs, default=1) + max(0.5, 0.02 * len(rows)))
        _mark_unfreezing(axes, rows, epochs)
    loss.set_ylim(bottom=0)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _mark_best(loss, accuracy, rows, epochs)
    for axes in (loss, accuracy):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", facecolor="white", edgecolor="none", framealpha=0.85)
    _save(figure, path)


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix: rows are true classes, columns predicted ones.

    Colours are fractions of the row, on a scale that makes small ones visible. Counts are written into the cells of up
    to 20 classes, class names beside up to 200.

    Args:
        confusion: Counts [classes, classes].
        classes: Names in the order of the rows.
        path: PNG file to write.
    """
    count = len(classes)
    fractions = [[value / max(1, sum(row)) for value in row] for row in confusion]
    cell = 0.5 if count <= _MOST_ANNOTATED_CLASSES else max(0.1, min(0.24, 14 / count))
    side = max(2.6, cell * min(count, MOST_NAMED_CLASSES))
    names = [_short(name) for name in classes] if count <= MOST_NAMED_CLASSES else []
    cell = side / count
    font = min(10.0, 52 * cell)
    large_font = max(10.0, 0.8 * side)
    margin = 0.9 + (0.62 * font / 72 * max(map(len, names)) if names else 0.4)

    size = (side + margin + 1.1, side + margin + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    axes.set_xlabel("predicted class", fontsize=large_font)
    axes.set_ylabel("true class", fontsize=large_font)
    if names:
        _name(axes, names, font)
    if count <= _MOST_ANNOTATED_CLASSES:
        _annotate(axes, confusion, fractions, cell)
    if count <= MOST_NAMED_CLASSES // 4:
        edges = [index - 0.5 for index in range(1, count)]
        axes.hlines(edges, -0.5, count - 0.5, color="white", linewidth=0.8)
        axes.vlines(edges, -0.5, count - 0.5, color="white", linewidth=0.8)
    axes.spines[:].set_color(_FRAME)
    total = sum(map(sum, confusion))
    correct = sum(confusion[index][index] for index in range(count))
    axes.set_title(f"{correct:,} of {total:,} pictures right ({correct / max(1, total):.1%})", fontsize=large_font + 1)
    ticks = [0, 0.02, 0.1, 0.25, 0.5, 0.75, 1]
    bar = figure.colorbar(image, ax=axes, fraction=0.3 / size[0], aspect=30, pad=0.02, ticks=ticks)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.ax.tick_params(labelsize=0.9 * large_font)
    bar.set_label("share of the true class", fontsize=large_font)
    bar.outline.set_visible(False)
    _save(figure, path)


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    return math.nan if value is None or value == "" else float(value)


def _dot(rows: Sequence[object]) -> float:
    return 4 if len(rows) <= 40 else 0 if len(rows) > 1 else 6


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=18)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=_FRAME, alpha=0.6, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FRAME)
    axes.tick_params(color=_FRAME)


def _mark_unfreezing(axes: Axes, rows: Sequence[Mapping[str, Any]], epochs: Sequence[float]) -> None:
    policies = [str(row.get("unfreeze", "")) for row in rows]
    changes = [index for index in range(1, len(rows)) if policies[index] != policies[index - 1]]
    if not changes:
        return
    left, right = axes.get_xlim()
    # The policy holds for the whole epoch, whose values are drawn at its end.
    starts = [left, *(epochs[index] - 0.5 for index in changes)]
    names = [_short(policies[index]) for index in [0, *changes]]
    widths = [stop - start for start, stop in zip(starts, [*starts[1:], right], strict=True)]
    fits = all(0.013 * (right - left) * len(name) < width for name, width in zip(names, widths, strict=True))
    for start, name in zip(starts, names, strict=True):
        if start > left:
            axes.axvline(start, color=_NEUTRAL, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8)
        text = axes.annotate(
            name,
            (start, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, 3 if fits else -3),
            textcoords="offset points",
            rotation=0 if fits else 90,
            va="bottom" if fits else "top",
            fontsize=8,
            color=_NEUTRAL,
        )
        _as_it_stands(text)
    axes.set_xlim(left, right)


def _mark_best(loss: Axes, accuracy: Axes, rows: Sequence[Mapping[str, Any]], epochs: Sequence[float]) -> None:
    values = [_number(row, "val_accuracy") for row in rows]
    if not any(map(math.isfinite, values)):
        return
    best = max(range(len(values)), key=lambda index: values[index] if math.isfinite(values[index]) else -math.inf)
    for axes, key in ((loss, "val_loss"), (accuracy, "val_accuracy")):
        value = _number(rows[best], key)
        if math.isfinite(value):
            label = f"best: epoch {epochs[best]:g}" + (f", {value:.1%}" if key == "val_accuracy" else "")
            (ring,) = axes.plot([epochs[best]], [value], "o", color=_VALIDATION, markersize=10, label=label)
            ring.set_fillstyle("none")


def _name(axes: Axes, names: Sequence[str], font: float) -> None:
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.tick_params(length=0)
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        _as_it_stands(label)


def _annotate(
    axes: Axes, confusion: Sequence[Sequence[int]], fractions: Sequence[Sequence[float]], cell: float
) -> None:
    digits = max(len(f"{value}") for counts in confusion for value in counts)
    font = min(12.0, 80 * cell / max(2, digits))
    for row, counts in enumerate(confusion):
        for column, value in enumerate(counts):
            if value:
                axes.text(
                    column,
                    row,
                    f"{value}",
                    ha="center",
                    va="center",
                    fontsize=font,
                    color="white" if fractions[row][column] > 0.35 else "#1f2937",
                )


def _as_it_stands(text: Text) -> None:
    # "cost_$5_and_$6" is a name, not a formula.
    text.set_parse_math(False)


def _short(name: str) -> str:
    """Keeps both ends of a long name, on one line."""
    name = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME // 2]}…{name[-(_LONGEST_NAME // 2 - 1) :]}"


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with warnings.catch_warnings(), write_atomically(path) as temporary:
        # Scripts that the fonts of this machine lack are drawn as boxes; there is nothing to be done about it here.
        warnings.filterwarnings("ignore", message=".*missing from font")
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", pad_inches=0.15)

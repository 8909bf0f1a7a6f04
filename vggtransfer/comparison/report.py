"""The table of a comparison: printed, and written as Markdown, CSV, JSON and a picture."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vggtransfer.cache import write_atomically
from vggtransfer.classification.console import plain_table, print_table
from vggtransfer.classification.json_output import json_text
from vggtransfer.comparison.markdown import comparison_markdown
from vggtransfer.comparison.networks import published_costs
from vggtransfer.comparison.options import image_size
from vggtransfer.comparison.pictures import ComparedPictures
from vggtransfer.comparison.results import NetworkResult
from vggtransfer.encoder.precision import resolve_precision
from vggtransfer.training.run_directory import write_rows

_SMALL_PICTURES = 64
_SHRINKING = ("googlenet", "resnet18", "densenet121")


@dataclass(frozen=True)
class Setting:
    """What all networks of a comparison have in common.

    Attributes:
        title: It in one line.
        classes: Number of classes.
        image_size: Side of the pictures that were asked for.
        pretrained: Whether the networks start from published weights.
        notes: What readers of the table must know.
    """

    title: str
    classes: int
    image_size: int
    pretrained: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Mapping[str, Any], pictures: ComparedPictures, device: torch.device) -> Setting:
        """Sums up the options, the pictures and the machine."""
        name = (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else _count(torch.get_num_threads(), "CPU thread")
        )
        precision = str(resolve_precision(recipe["precision"], device)).removeprefix("torch.")
        pretrained = recipe["weights"] != "none"
        source = {"test": "`test/`", "val": "`val/`", "set aside": "a fifth of the pictures, set aside"}
        return cls(
            title=(
                f"{pictures.pictures.root.resolve().name}, {pictures.counts}; {_count(recipe['epochs'], 'epoch')}, "
                f"{'fine-tuned' if pretrained else 'from scratch'}, {recipe['optimizer']}, batches of "
                f"{recipe['batch_size']}, augmentation {Path(recipe['augmentation']).name}, seed {recipe['seed']}; "
                f"{name}, {precision}"
            ),
            classes=len(pictures.pictures.classes),
            image_size=image_size(recipe),
            pretrained=pretrained,
            notes=(
                f"Test: {source[pictures.split]}, after the last epoch; no epoch was chosen by it. Train: the running "
                "accuracy over the last epoch's augmented pictures.",
            ),
        )


def report(results: Sequence[NetworkResult], setting: Setting, run: Path, *, progress: str) -> str:
    """Prints the table and writes it to the run directory in all its forms; returns the Markdown.

    Args:
        results: The networks so far.
        setting: What they have in common.
        run: The run directory.
        progress: How many of them there are, in words.
    """
    from vggtransfer.comparison.figure import draw_comparison  # a second to import

    rows, epochs = [_summary(result) for result in results], epoch_rows(results)
    notes = _notes(results, setting)
    published = [{"network": result.arch} | asdict(published_costs(result.arch)) for result in results]
    text = comparison_markdown(results, rows, title=setting.title, notes=notes, run=run)
    write_rows(run / "comparison.csv", [_plain(result, setting) for result in results])
    write_rows(run / "epochs.csv", epochs)
    content: dict[str, object] = {
        "setting": setting.title,
        "networks": [_plain(result, setting) for result in results],
        "published": published,
        "epochs": [{key: _finite(value) for key, value in row.items()} for row in epochs],
        "notes": notes,
    }
    with write_atomically(run / "comparison.json") as temporary:
        temporary.write_text(json_text(content) + "\n", encoding="utf-8")
    with write_atomically(run / "comparison.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    draw_comparison(results, run / "comparison.png", title=setting.title)

    table = plain_table(*rows[0], numbers=tuple(rows[0])[1:])
    for row in rows:
        table.add_row(*row.values())
    print()
    print_table(table)
    for note in notes:
        print(f"- {note}")
    print(f"{progress}; wrote comparison.md, .csv, .json, .png and epochs.csv in {shlex.quote(str(run))}", flush=True)
    return text


def epoch_rows(results: Sequence[NetworkResult]) -> list[dict[str, object]]:
    """One row for each epoch of each network, with plain names for the columns."""
    columns = {
        "learning_rate": "learning_rate",
        "train_loss": "train_loss",
        "train_accuracy": "train_accuracy",
        "test_loss": "val_loss",
        "test_accuracy": "val_accuracy",
        "seconds": "seconds",
        "images_per_second": "images_per_second",
    }
    rows: list[dict[str, object]] = []
    for result in results:
        for row in result.history:
            values = {name: row[column] for name, column in columns.items()}
            rows.append({"network": result.arch, "epoch": row["epoch"], **values})
    return rows


def _plain(result: NetworkResult, setting: Setting) -> dict[str, object]:
    """A network's row for programs."""
    return {
        "network": result.arch,
        "outcome": f"diverged in {result.diverged}" if result.diverged else _trained(result, setting),
        "image_size": result.image_size,
        "parameters": result.parameters,
        "macs": result.macs,
        "train_accuracy": result.train_accuracy,
        "test_accuracy": result.test_accuracy,
        "train_loss": result.last("train_loss"),
        "test_loss": result.last("val_loss"),
        "epochs": len(result.history),
        "images_per_second": result.images_per_second,
        "training_minutes": round(result.minutes, 2),
        "peak_memory_mib": None if result.memory_mib is None else round(result.memory_mib, 1),
        "memory_measured": "" if result.memory_mib is None else result.memory_heading.partition(",")[0],
        "peak_learning_rate": result.learning_rate,
        "warmup_epochs": result.warmup_epochs,
        "gradient_clip": result.gradient_clip,
        "weights": result.origin,
    }


def _trained(result: NetworkResult, setting: Setting) -> str:
    return "learnt nothing" if result.learnt_nothing(setting.classes) else "trained"


def _summary(result: NetworkResult) -> dict[str, str]:
    """A network's row for people; the keys are the headings."""
    if result.diverged:
        train, test = "diverged", "diverged"
    else:
        train, test = _percent(result.train_accuracy), _percent(result.test_accuracy)
    return {
        "network": result.arch,
        "pixels": f"{result.image_size}",
        "parameters": _millions(result.parameters),
        "MACs": _millions(result.macs),
        "train": train,
        "test": test,
        "train loss": _loss(result.last("train_loss")),
        "images/s": _number(result.images_per_second, "{:,.0f}"),
        "minutes": f"{result.minutes:.1f}",
        result.memory_heading: _number(result.memory_mib, "{:,.0f}"),
    }


def _notes(results: Sequence[NetworkResult], setting: Setting) -> list[str]:
    notes = list(setting.notes)
    names = [result.arch for result in results]
    for result in results:
        if result.diverged:
            notes.append(f"{result.arch} diverged in {result.diverged}: loss or gradient were no longer finite.")
        elif result.learnt_nothing(setting.classes):
            notes.append(
                f"{result.arch} learnt nothing: its training loss, {result.last('train_loss'):.4f}, is that of equal "
                f"scores for {setting.classes} classes, ln {setting.classes} = {math.log(setting.classes):.4f}."
            )
    if own := [f"{result.arch} {result.image_size}" for result in results if result.image_size != setting.image_size]:
        notes.append(
            f"Pictures are scaled to the side of a network that does not take {setting.image_size}: {_list(own)}."
        )
    ways: dict[str, list[str]] = {}
    for result in results:
        clip = "no clipping" if result.gradient_clip is None else f"gradients clipped to {result.gradient_clip:g}"
        way = f"peak rate {result.learning_rate:g}, warm-up {result.warmup_epochs:g} epochs, {clip}"
        ways.setdefault(way, []).append(result.arch)
    notes += [f"{_list(archs)}: {way}." for way, archs in ways.items()]
    if setting.image_size <= _SMALL_PICTURES and (shrinking := [name for name in names if name in _SHRINKING]):
        notes.append(
            f"{_list(shrinking)}: torchvision's, made for 224 pixels; the first layers shrink pictures of "
            f"{setting.image_size} to {setting.image_size // 4}, which costs accuracy. Variants for CIFAR do not."
        )
    if any(result.memory_mib and result.memory_heading.startswith("process") for result in results):
        notes.append("Process memory includes Python, its libraries and the list of pictures.")
    if "googlenet" in names:
        notes.append("googlenet: without auxiliary heads.")
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _percent(value: float | None) -> str:
    return _number(value, "{:.2%}")


def _loss(value: float | None) -> str:
    return _number(value, "{:.4f}" if value is not None and value < 100 else "{:.3g}")


def _number(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)


def _millions(value: int) -> str:
    return f"{value / 1e6:,.2f} M" if value < 1e8 else f"{value / 1e6:,.1f} M"


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)

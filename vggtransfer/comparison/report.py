"""The table of a comparison: printed, and written as Markdown, CSV, JSON and a picture."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vggtransfer.cache import write_atomically
from vggtransfer.comparison.markdown import comparison_markdown
from vggtransfer.comparison.networks import published_costs
from vggtransfer.comparison.notes import comparison_notes
from vggtransfer.comparison.results import NetworkResult
from vggtransfer.comparison.setting import Setting
from vggtransfer.printable import printable
from vggtransfer.report.console import plain_table, print_table
from vggtransfer.report.json_output import json_text
from vggtransfer.training.run_directory import write_rows


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
    notes = comparison_notes(results, setting)
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
    place = printable(shlex.quote(str(run)))
    print(f"{progress}; wrote comparison.md, .csv, .json, .png and epochs.csv in {place}", flush=True)
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

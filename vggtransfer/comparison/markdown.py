"""The tables of a comparison as Markdown, ready to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vggtransfer.comparison.networks import published_costs
from vggtransfer.comparison.results import NetworkResult


def comparison_markdown(
    results: Sequence[NetworkResult], rows: Sequence[Mapping[str, str]], *, title: str, notes: Sequence[str], run: Path
) -> str:
    """Returns the table, its notes, every epoch, and the networks as published.

    Args:
        results: The networks.
        rows: A row of cells for each of them, by heading.
        title: What they have in common.
        notes: Sentences below the table.
        run: The run directory.
    """
    curves = [
        {"epoch": f"{epoch + 1}"} | {result.arch: _epoch_cell(result, epoch) for result in results}
        for epoch in range(max((len(result.history) for result in results), default=0))
    ]
    costs = [_published_row(result.arch) for result in results]
    parts = [
        title,
        _table(rows),
        "\n".join(f"- {note}" for note in notes),
        "![Accuracy per epoch, and against computation](comparison.png)",
        "Accuracy per epoch, train / test:",
        _table(curves),
        f"The networks as published ({_published_for(results)}):",
        _table(costs),
        f"`vggtransfer compare --config {run.as_posix()}/recipe.yaml` gives these numbers again.",
    ]
    return "\n\n".join(parts) + "\n"


def _published_row(arch: str) -> dict[str, str]:
    costs = published_costs(arch)
    return {
        "network": arch,
        "pixels": f"{costs.image_size}",
        "parameters": f"{costs.parameters:,}",
        "MACs": f"{costs.macs:,}",
    }


def _published_for(results: Sequence[NetworkResult]) -> str:
    text = "1000 classes"
    if any(result.arch == "lenet5" for result in results):
        text += "; lenet5: 10 classes, grey pictures"
    if any(result.arch == "vgg16_bn_x0_25" for result in results):
        text += "; vgg16_bn_x0_25: the trunk alone"
    return text


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    headings = list(rows[0])
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * (len(headings) - 1)]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines)


def _epoch_cell(result: NetworkResult, epoch: int) -> str:
    if epoch >= len(result.history):
        return "diverged" if epoch == len(result.history) and result.diverged else ""
    row = result.history[epoch]
    return f"{row['train_accuracy']:.1%} / {row['val_accuracy']:.1%}"

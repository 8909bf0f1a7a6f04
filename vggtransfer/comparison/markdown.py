"""The tables of a comparison as Markdown, ready to paste."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torchvision

from vggtransfer.comparison.networks import parameters_with_auxiliary_heads, published_costs
from vggtransfer.comparison.results import NetworkResult
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, architecture
from vggtransfer.printable import printable


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
        _escaped(title),
        _table(rows),
        "\n".join(f"- {note}" for note in notes),
        "![Accuracy per epoch, and against computation](comparison.png)",
        "Accuracy per epoch, train / test:",
        _table(curves),
        f"The networks {_as_published([result.arch for result in results])}:",
        _table(costs),
        f"`vggtransfer compare --config {printable(shlex.quote(f'{run.as_posix()}/recipe.yaml'))}` trains the same "
        "again. Times and memory depend on the machine and on what else it does.",
    ]
    return "\n\n".join(parts) + "\n"


def _published_row(arch: str) -> dict[str, str]:
    costs = published_costs(arch)
    return {
        "network": arch,
        "pixels": f"{costs.image_size}",
        "parameters": f"{costs.parameters:,}",
        "MACs": f"{costs.macs:,}",
        "receptive field of the last map": f"{costs.receptive_field}",
    }


def _as_published(names: Sequence[str]) -> str:
    """What the last table counts, and where that is not torchvision's network for 1000 classes."""
    parts = ["as torchvision builds them for 224x224 and 1000 classes"]
    for name in names:
        if name == "lenet5":
            parts.append("lenet5: ours, for grey pictures of 10 classes")
        elif name == "googlenet":
            whole = parameters_with_auxiliary_heads()
            parts.append(f"googlenet without its auxiliary heads, {whole:,} parameters with them")
        elif name in ARCHITECTURE_NAMES and not architecture(name).classifier_widths:
            parts.append(f"{name}: ours, without a classifier")
        elif not hasattr(torchvision.models, name):
            parts.append(f"{name}: ours, after the paper")
    return "; ".join(parts)


def _escaped(text: str) -> str:
    """Names of folders are text as it stands, whatever their characters mean in Markdown."""
    return re.sub(r"[\\`*<\[\]$~&|]", r"\\\g<0>", text)


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

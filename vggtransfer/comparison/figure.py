"""The picture of a comparison: test accuracy by epoch, and against what a network costs."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from vggtransfer.cache import write_atomically
from vggtransfer.comparison.results import NetworkResult

_COLOURS = (
    "#1f6f8b",
    "#d1495b",
    "#e09f3e",
    "#2a9d5c",
    "#7b5ea7",
    "#8c5a3c",
    "#c45ab3",
    "#5f6b7a",
    "#5aa9d6",
    "#a3b18a",
)
_FRAME = "#c4c9d1"
_AREA_OF_A_MILLION = 9.0  # square points
_NAMES_BEGIN = 0.76  # part of the width that lines and circles have, before the names
_NAME_HEIGHT = 12.5  # points


class _Name(NamedTuple):
    """What stands at the right-hand side for one network, and the point (x, y) that it belongs to."""

    text: str
    colour: str
    x: float
    y: float


def draw_comparison(results: Sequence[NetworkResult], path: Path, *, title: str) -> None:
    """Draws test accuracy over epochs, one line per network, and final accuracy against MACs.

    Areas of the circles are in proportion to parameters. A network that diverged ends in a cross and has no circle.

    Args:
        results: The networks.
        path: PNG file to write.
        title: What they have in common.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(12.5, 5.2), dpi=150, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    # Names of folders are in the title: "cost_$5_and_$6" is no formula.
    lines = "\n".join(textwrap.wrap(title, 165))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=9.5, color="#4b5563", parse_math=False)
    axes: tuple[Axes, Axes] = tuple(figure.subplots(1, 2, width_ratios=(1.1, 1)))
    colours = _colours(len(results))
    names = (_draw_curves(axes[0], results, colours), _draw_costs(axes[1], results, colours))
    with warnings.catch_warnings(), write_atomically(path) as temporary:
        # Scripts that the fonts of this machine lack are drawn as boxes; there is nothing to be done about it here.
        warnings.filterwarnings("ignore", message=".*missing from font")
        figure.draw_without_rendering()  # lays the panels out, so that their heights are known
        for panel, entries in zip(axes, names, strict=True):
            _write_names(panel, entries)
        figure.savefig(temporary, format="png")


def _colours(count: int) -> list[str]:
    if count <= len(_COLOURS):
        return list(_COLOURS[:count])
    return [to_hex(colormaps["turbo"]((index + 0.5) / count)) for index in range(count)]


def _draw_curves(axes: Axes, results: Sequence[NetworkResult], colours: Sequence[str]) -> list[_Name]:
    longest = max((len(result.history) for result in results), default=1)
    names = []
    for result, colour in zip(results, colours, strict=True):
        values = [float(row["val_accuracy"]) for row in result.history]
        epochs = range(1, len(values) + 1)
        marker = "o" if longest <= 40 else ""
        axes.plot(epochs, values, color=colour, linewidth=1.8, marker=marker, markersize=3.5, clip_on=False)
        if result.diverged and values:
            axes.plot(len(values), values[-1], "X", color=colour, markersize=10, clip_on=False)
        ending = "diverged" if result.diverged else f"{values[-1]:.1%}"
        names.append(_Name(f"{result.arch}  {ending}", colour, len(values) or 1, values[-1] if values else 0.0))
    _style(axes, "Test accuracy by epoch", "epoch")
    ticks = MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1).tick_values(1, longest)
    axes.xaxis.set_major_locator(FixedLocator([int(tick) for tick in ticks if 1 <= tick <= longest]))
    width = max(longest - 1, 1)
    axes.set_xlim(1 - 0.02 * width, 1 + width / (_NAMES_BEGIN - 0.02))
    return names


def _draw_costs(axes: Axes, results: Sequence[NetworkResult], colours: Sequence[str]) -> list[_Name]:
    names = []
    for result, colour in zip(results, colours, strict=True):
        if (accuracy := result.test_accuracy) is not None:
            area = _AREA_OF_A_MILLION * result.parameters / 1e6 + 8
            axes.scatter([result.macs], [accuracy], s=area, color=colour, alpha=0.6, edgecolors=colour, zorder=3)
            millions = result.parameters / 1e6
            size = f"{millions:.1f} M" if millions >= 1 else f"{1000 * millions:.0f} k"
            names.append(_Name(f"{result.arch}  {size}", colour, result.macs, accuracy))
    _style(
        axes, "Test accuracy against computation", "multiply-accumulates for one picture  (areas and names: parameters)"
    )
    axes.set_xscale("log")
    macs = [result.macs for result in results if result.test_accuracy is not None] or [10**6, 10**9]
    low, high = min(macs) / 2, max(macs) * 2
    axes.set_xlim(low, low * (high / low) ** (1 / _NAMES_BEGIN))
    axes.xaxis.set_major_locator(LogLocator(10, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _counted(value) if value <= high else ""))
    axes.xaxis.set_minor_locator(NullLocator())
    return names


def _style(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
    axes.set_xlabel(x_label)
    axes.grid(axis="y", color=_FRAME, alpha=0.6, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FRAME)
    axes.tick_params(color=_FRAME)
    bottom, top = axes.get_ylim()
    margin = 0.06 * max(top - bottom, 0.02)
    axes.set_ylim(max(0.0, bottom - margin), min(1.0, top + margin))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _write_names(axes: Axes, names: Sequence[_Name]) -> None:
    """Writes the names in a column at the right-hand side, each as near to its point's height as the others allow."""
    bottom, top = axes.get_ylim()
    points = axes.get_window_extent().height / axes.figure.dpi * 72
    rising = sorted(names, key=lambda name: name.y)
    heights = spread([name.y for name in rising], (top - bottom) * _NAME_HEIGHT / points, low=bottom, high=top)
    for name, height in zip(rising, heights, strict=True):
        axes.annotate(
            name.text,
            (name.x, name.y),
            xytext=(_NAMES_BEGIN + 0.02, height),
            textcoords=axes.get_yaxis_transform(),
            fontsize=9,
            color=name.colour,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": name.colour,
                "alpha": 0.4,
                "linewidth": 0.8,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 3,
            },
            annotation_clip=False,
        )


def spread(values: Sequence[float], step: float, *, low: float, high: float) -> list[float]:
    """Moves rising values apart until neighbours are `step` apart, by as little as possible, between low and high.

    Where there is no room for all, they share it equally.
    """
    if len(values) > 1:
        step = min(step, (high - low) / (len(values) - 1))
    # Groups of values that touch, as (sum, count), each to be centred on its mean.
    groups: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while groups and total / count - groups[-1][0] / groups[-1][1] < step * (count + groups[-1][1]) / 2:
            earlier_total, earlier_count = groups.pop()
            total, count = total + earlier_total, count + earlier_count
        groups.append((total, count))
    placed = [
        total / count + (position - (count - 1) / 2) * step for total, count in groups for position in range(count)
    ]
    for index in range(len(placed)):
        placed[index] = max(placed[index], low + index * step)
    for index in range(len(placed)):
        placed[index] = min(placed[index], high - (len(placed) - 1 - index) * step)
    return placed


def _counted(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {unit}"
    return f"{value:g}"

"""Line charts: where everything in them stands. The template draws them, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 230
"""Of a chart in the user units of its SVG, which are pixels on a phone."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 36
_ROW = 13  # height of a line of small text
_LETTER = 5.8  # its usual width
_MOST_DOTS = 40
_MOST_TICKS = 7
_STYLES = ("first", "second", "third")


@dataclass(frozen=True)
class Tick:
    """A number beside an axis, at a distance along it."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """One line: its SVG path, and its points where they are few enough to be shown."""

    name: str
    style: str
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Mark:
    """A vertical line with a label."""

    at: float
    label: str
    label_at: float
    label_height: float
    anchor: str


@dataclass(frozen=True)
class LineChart:
    """A chart laid out; all lengths are in the units of the SVG, downwards and to the right."""

    title: str
    x_label: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...]
    ring: tuple[float, float] | None


def line_chart(
    title: str,
    steps: Sequence[int],
    values: Mapping[str, Sequence[float]],
    *,
    x_label: str,
    percent: bool = False,
    logarithmic: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    ring: tuple[float, float] | None = None,
) -> LineChart:
    """Lays out a chart of up to three curves.

    Args:
        title: Above it.
        steps: Positions along the horizontal axis: whole numbers, rising.
        values: For each curve, one value a step; what is not finite leaves a gap. Curves without any value are
            left out.
        x_label: What the steps are.
        percent: Whether 1 reads 100%, and nothing is above it.
        logarithmic: Whether equal distances are equal ratios; values that are not positive leave a gap. Otherwise the
            axis begins at 0, or at the lowest value below it.
        marks: Vertical lines as (position, label).
        ring: A point (position, value) to point out.
    """
    scale = _logarithm if logarithmic else float
    shown = {name: numbers for name, numbers in values.items() if any(math.isfinite(scale(one)) for one in numbers)}
    finite = [number for numbers in shown.values() for number in numbers if math.isfinite(scale(number))] or [1.0]
    if logarithmic:
        y_values = _powers(min(finite), max(finite))
    else:
        y_values = _round_numbers(min(0.0, *finite), max(finite), most=5)
    if percent:
        y_values = [value for value in y_values if value <= 1 + 1e-9]
    lowest, highest = scale(min(y_values[0], *finite)), scale(max(y_values[-1], *finite))
    if logarithmic:
        lowest -= 0.05 * (highest - lowest)  # room for the dots
    first, last = (float(min(steps)), float(max(steps))) if steps else (0.0, 1.0)
    if first == last:
        first, last = first - 0.5, last + 0.5

    left, right, bottom = float(_LEFT), float(WIDTH - _RIGHT), float(HEIGHT - _BOTTOM)
    across = [left + (position - first) / (last - first) * (right - left) for position, _ in marks]
    placed = _place_labels(across, [label for _, label in marks], left, right)
    top = float(_TOP + _ROW * (1 + max((row for row, _, _ in placed), default=-1)))

    def x(step: float) -> float:
        return round(left + (step - first) / (last - first) * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - (scale(value) - lowest) / (highest - lowest or 1) * (bottom - top), 1)

    curves = [
        Curve(name, style, *_trace([(x(step), y(value)) for step, value in zip(steps, numbers, strict=True)]))
        for style, (name, numbers) in zip(_STYLES, shown.items(), strict=False)
    ]
    x_values = [value for value in _round_numbers(first, last, most=8, whole=True) if first <= value <= last]
    return LineChart(
        title=title,
        x_label=x_label,
        width=WIDTH,
        height=HEIGHT,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=tuple(Tick(x(value), f"{value:g}") for value in x_values),
        y_ticks=tuple(Tick(y(value), f"{100 * value:.3g}%" if percent else f"{value:.4g}") for value in y_values),
        curves=tuple(curves),
        marks=tuple(
            Mark(round(at, 1), label, round(label_at, 1), _TOP + _ROW * (row + 1) - 4, anchor)
            for at, (_, label), (row, label_at, anchor) in zip(across, marks, placed, strict=True)
        ),
        ring=None if ring is None or not all(map(math.isfinite, ring)) else (x(ring[0]), y(ring[1])),
    )


def _round_numbers(low: float, high: float, *, most: int, whole: bool = False) -> list[float]:
    """Returns at most about `most` round numbers at equal distances, from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / most))
    step = next(step for step in (size, 2 * size, 2.5 * size, 5 * size, 10 * size) if span / step <= most)
    if whole:
        step = max(1, math.ceil(step))
    first = math.floor(low / step + 1e-9)
    count = math.ceil(high / step - 1e-9) - first
    return [(first + index) * step for index in range(max(1, count) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times powers of ten from `low` to `high`, or powers of ten alone where those are many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    inside = [value for value in found if low <= value <= high] or [low]
    return inside if len(inside) <= _MOST_TICKS else [value for value in inside if round(math.log10(value), 9) % 1 == 0]


def _logarithm(value: float) -> float:
    return math.log10(value) if value > 0 else math.nan


def _trace(points: Sequence[tuple[float, float]]) -> tuple[str, tuple[tuple[float, float], ...]]:
    path, pen = [], "M"
    for x, y in points:
        if math.isfinite(y):
            path.append(f"{pen}{x:g},{y:g}")
            pen = "L"
        else:
            pen = "M"
    dots = tuple(point for point in points if math.isfinite(point[1])) if len(points) <= _MOST_DOTS else ()
    return " ".join(path), dots


def _place_labels(
    positions: Sequence[float], labels: Sequence[str], left: float, right: float
) -> list[tuple[int, float, str]]:
    """Returns (row, position, text anchor) of each label: beside its mark, in the first row where it touches no other.

    A label longer than the chart reaches beyond its left edge.
    """
    rows: list[float] = []  # where the last label of each row ends
    placed = []
    for position, label in zip(positions, labels, strict=True):
        length = _LETTER * len(label)
        start = position + 4 if position + 4 + length <= right else position - 4 - length
        row = next((row for row, end in enumerate(rows) if end < max(start, left)), len(rows))
        rows[row : row + 1] = [start + length + _LETTER]
        placed.append((row, start, "start") if start > position else (row, position - 4, "end"))
    return placed

from __future__ import annotations

import math

import pytest

from vggtransfer.report.charts import LineChart, line_chart


def points(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point[1:].split(","))) for point in path.split()]  # type: ignore[misc]


def labels(chart: LineChart, axis: str) -> list[str]:
    return [tick.label for tick in getattr(chart, f"{axis}_ticks")]


def test_points_stand_where_the_axes_say() -> None:
    chart = line_chart("Loss", [1, 2, 3], {"a": [2.0, 1.0, 0.0], "b": [0.5, 0.5, 0.5]}, x_label="epoch")
    assert labels(chart, "x") == ["1", "2", "3"]
    assert labels(chart, "y") == ["0", "0.5", "1", "1.5", "2"]
    ticks = {tick.label: tick.at for tick in chart.y_ticks}
    across = [tick.at for tick in chart.x_ticks]
    assert points(chart.curves[0].path) == [(across[0], ticks["2"]), (across[1], ticks["1"]), (across[2], ticks["0"])]
    assert {y for _, y in points(chart.curves[1].path)} == {ticks["0.5"]}
    assert (across[0], across[2]) == (chart.left, chart.right)
    assert (ticks["0"], ticks["2"]) == (chart.bottom, chart.top)
    assert [curve.style for curve in chart.curves] == ["first", "second"]


def test_percent_ends_at_100() -> None:
    chart = line_chart("Accuracy", [1, 2], {"a": [0.2, 0.99]}, x_label="epoch", percent=True)
    assert labels(chart, "y") == ["0%", "20%", "40%", "60%", "80%", "100%"]


def test_logarithmic_scale() -> None:
    chart = line_chart("Loss", [1, 2, 3, 4], {"a": [100.0, 10.0, 1.0, 0.0]}, x_label="epoch", logarithmic=True)
    assert labels(chart, "y") == ["1", "2", "5", "10", "20", "50", "100"]
    (_, first), (_, second), (_, third) = points(chart.curves[0].path)  # 0 has no place
    assert second - first == pytest.approx(third - second, abs=0.11)
    chart = line_chart("Loss", [1, 2], {"a": [3e4, 0.2]}, x_label="epoch", logarithmic=True)
    assert labels(chart, "y") == ["1", "10", "100", "1000", "1e+04"]


def test_gaps() -> None:
    values = {"a": [1.0, math.nan, 2.0, 3.0, math.inf], "nothing": [math.nan] * 5}
    chart = line_chart("Loss", [1, 2, 3, 4, 5], values, x_label="epoch", ring=(2, math.nan))
    (curve,) = chart.curves
    assert [part[0] for part in curve.path.split()] == ["M", "M", "L"]
    assert len(curve.dots) == 3
    assert chart.ring is None


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [0.0, 0.0], [-1.0, 1.0], [1e-9, 2e-9], [1e12, 1e12]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_any_values(values: list[float], logarithmic: bool) -> None:
    steps = list(range(1, len(values) + 1))
    chart = line_chart("x", steps, {"a": values}, x_label="epoch", logarithmic=logarithmic)
    assert 1 <= len(chart.y_ticks) <= 8
    for x, y in [point for curve in chart.curves for point in curve.dots]:
        assert chart.left <= x <= chart.right
        assert chart.top <= y <= chart.bottom
    assert len(set(labels(chart, "y"))) == len(chart.y_ticks)


def test_long_runs_have_few_ticks_and_no_dots() -> None:
    chart = line_chart("x", list(range(1, 301)), {"a": [0.5] * 300}, x_label="epoch")
    assert labels(chart, "x") == ["50", "100", "150", "200", "250", "300"]
    assert chart.curves[0].dots == ()


def test_labels_of_marks_do_not_touch() -> None:
    marks = [(1.5, "block5"), (1.6, "block4-block5"), (9.8, "all of it")]
    chart = line_chart("x", list(range(1, 11)), {"a": [1.0] * 10}, x_label="epoch", marks=marks)
    first, second, third = chart.marks
    assert first.label_height < second.label_height  # too near for one row
    assert third.label_height == first.label_height
    assert (first.anchor, third.anchor) == ("start", "end")  # no room to its right
    assert third.label_at < third.at <= chart.right
    assert chart.top > second.label_height
    assert line_chart("x", [1, 2], {"a": [1.0, 2.0]}, x_label="epoch").top < chart.top

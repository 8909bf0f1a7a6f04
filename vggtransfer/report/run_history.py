"""How a training went, as charts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from vggtransfer.report.charts import LineChart, line_chart

_LARGEST_SPREAD = 6.0


def history_charts(
    history: Sequence[Mapping[str, float | int | str]], quantities: Mapping[str, Mapping[str, str]], *, best: int
) -> list[LineChart]:
    """Lays out a chart for each quantity, and one for the learning rate.

    Args:
        history: The rows of metrics.csv.
        quantities: For each title, the columns of up to three curves by name; the last curve is the one that tells the
            best epoch. All but losses are shares of 1.
        best: The best epoch, from 0; below that, there is none.
    """
    steps = [int(row["epoch"]) for row in history]

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in history]

    changes = [
        (float(row["epoch"]) - 0.5, str(row["unfreeze"]))
        for before, row in itertools.pairwise(history)
        if before["unfreeze"] != row["unfreeze"]
    ]
    charts = []
    for title, curves in quantities.items():
        values = {name: column(curve) for name, curve in curves.items()}
        last = list(values.values())[-1]
        is_loss = "loss" in title.lower()
        # One epoch gone astray would press all others down to the axis.
        wide = is_loss and max(map(_spread, values.values())) > _LARGEST_SPREAD
        charts.append(
            line_chart(
                title + (" (logarithmic scale)" if wide else ""),
                steps,
                values,
                x_label="epoch",
                percent=not is_loss,
                logarithmic=wide,
                marks=changes,
                ring=(steps[best], last[best]) if 0 <= best < len(steps) else None,
            )
        )
    rates = {"the highest of all layers": column("learning_rate")}
    return [*charts, line_chart("Learning rate after the epoch", steps, rates, x_label="epoch", marks=changes)]


def duration(seconds: float) -> str:
    """Returns `42 s`, `12 min` or `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _spread(values: Sequence[float]) -> float:
    """The largest value in units of the median."""
    finite = sorted(value for value in values if math.isfinite(value) and value > 0) or [1.0]
    return finite[-1] / finite[len(finite) // 2]

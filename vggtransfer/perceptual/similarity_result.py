"""What `similarity` found, as a table, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PairSimilarity:
    """How similar the two pictures of a pair are.

    Attributes:
        name: Path of the first picture below its folder, or its file name.
        a: The first picture.
        b: The second picture.
        values: By metric.
        layers: What each layer adds to it, by metric and layer; only metrics that have layers.
        heat_map: The picture of where they differ, if one was written.
        hottest: The distance that has the hottest colour there.
    """

    name: str
    a: Path
    b: Path
    values: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]
    heat_map: Path | None = None
    hottest: float | None = None


@dataclass(frozen=True)
class NotCompared:
    """A pair that could not be compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class SimilarityResult:
    """What `similarity` found.

    Attributes:
        pairs: One per pair that could be compared, sorted by name.
        failed: The other pairs.
        only_a: Pictures of the first folder without a partner in the second.
        only_b: Pictures of the second folder without a partner in the first.
        stamps: What the values of each metric depend on besides the pictures.
        out: The folder written, or None.
    """

    pairs: tuple[PairSimilarity, ...]
    failed: tuple[NotCompared, ...]
    only_a: tuple[Path, ...]
    only_b: tuple[Path, ...]
    stamps: Mapping[str, Mapping[str, str]]
    out: Path | None

    def means(self) -> dict[str, float]:
        """The mean of each metric over the pairs; for psnr infinite if one pair is of equal pictures."""
        return {name: sum(pair.values[name] for pair in self.pairs) / len(self.pairs) for name in self.stamps}

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it; an infinite value (psnr of equals) is null."""
        compared = [
            {
                "name": pair.name,
                "status": "ok",
                "a": str(pair.a),
                "b": str(pair.b),
                **_finite(pair.values),
                "layers": {metric: dict(layers) for metric, layers in pair.layers.items()},
                "heat_map": None if pair.heat_map is None else str(pair.heat_map),
                "hottest": pair.hottest,
            }
            for pair in self.pairs
        ]
        failed = [{"name": pair.name, "status": "not compared", "reason": pair.reason} for pair in self.failed]
        return {
            "stamps": [dict(stamp) for stamp in self.stamps.values()],
            "mean": _finite(self.means()),
            "pairs": compared + failed,
            "only_a": list(map(str, self.only_a)),
            "only_b": list(map(str, self.only_b)),
            "out": None if self.out is None else str(self.out),
        }

    def as_csv(self) -> str:
        """One line per pair that was compared: name, a, b, the metrics, then what each layer adds to them."""
        layers = [(metric, layer) for metric, values in self.pairs[0].layers.items() for layer in values]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "a", "b", *self.stamps, *(f"{metric} {layer}" for metric, layer in layers)])
        for pair in self.pairs:
            values = [pair.values[metric] for metric in self.stamps]
            values += [pair.layers[metric][layer] for metric, layer in layers]
            writer.writerow([pair.name, pair.a, pair.b, *(f"{value:.6g}" for value in values)])
        return text.getvalue()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}

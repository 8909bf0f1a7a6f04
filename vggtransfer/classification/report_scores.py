"""What a report says about scores: in words, as tables, and as the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vggtransfer.classification.metrics import Scores, calibration_bins, most_confused
from vggtransfer.report.page import percent
from vggtransfer.report.pictures import graphic_url

_MOST_NAMED_CLASSES = 25
_MOST_PAIRS = 15
_SMALL_CALIBRATION_ERROR = 0.03
# Blue for right and red for wrong answers: between the page's light and dark variants of both, for it shows on either.
_RIGHT, _WRONG = (58, 122, 190), (219, 92, 70)


@dataclass(frozen=True)
class ConfusionCell:
    """A count, and its share of the pictures of the true class."""

    count: int
    share: float


def scores_content(
    scores: Scores, probabilities: Tensor, labels: Tensor, *, training_counts: Sequence[int] | None = None
) -> dict[str, Any]:
    """Returns what the sections on scores show.

    Args:
        scores: Of the pictures.
        probabilities: float [pictures, classes].
        labels: int64 [pictures].
        training_counts: Training pictures of each class, where known.
    """
    names = [row.label for row in scores.classes]
    confused = most_confused(scores.confusion)
    named = len(names) <= _MOST_NAMED_CLASSES
    return {
        "scores": scores,
        "sentences": _sentences(scores, probabilities, confused),
        "class_rows": _class_rows(scores, confused, training_counts),
        "absent": sum(row.support == 0 for row in scores.classes),
        "training_counts_known": training_counts is not None,
        "confusion": _confusion_cells(scores.confusion) if named else None,
        "confusion_picture": None if named else _confusion_picture(scores.confusion),
        "class_names": names,
        "pairs": [
            (names[true], names[predicted], count, percent(count / scores.classes[true].support))
            for count, true, predicted in confused[:_MOST_PAIRS]
        ],
        "pair_count": len(confused),
        "bins": calibration_bins(probabilities, labels),
    }


def _sentences(scores: Scores, probabilities: Tensor, confused: Sequence[tuple[int, int, int]]) -> list[str]:
    present = [row for row in scores.classes if row.support]
    sentences = []
    if confused:
        hardest = min(present, key=lambda row: row.f1)
        sentences.append(
            f"The hardest class is {hardest.label}: {percent(hardest.recall)} of its {_pictures(hardest.support)} "
            f"found, and {percent(hardest.precision)} of the pictures taken for it right."
        )
        count, true, predicted = confused[0]
        sentences.append(
            f"The most frequent confusion: {scores.classes[true].label} taken for {scores.classes[predicted].label}, "
            f"{_pictures(count)}."
        )
    largest = max(row.support for row in present)
    sentences.append(
        f"Always answering the most frequent class would be right in {percent(largest / scores.pictures)}, guessing in "
        f"{percent(1 / len(scores.classes))}."
    )
    confidence = probabilities.float().max(dim=1).values.double().mean().item()
    gap = confidence - scores.top1_accuracy
    sentences.append(
        f"On average it gives its answers a probability of {percent(confidence)} and is right in "
        f"{percent(scores.top1_accuracy)}; by range of probability, the two differ by "
        f"{percent(scores.calibration_error)} (expected calibration error). {_verdict(gap, scores.calibration_error)}"
    )
    return sentences


def _verdict(gap: float, calibration_error: float) -> str:
    """Whether stated probabilities can be believed.

    Args:
        gap: Mean probability of the answers less the accuracy; its size is at most the calibration error.
        calibration_error: Expected calibration error.
    """
    if calibration_error < _SMALL_CALIBRATION_ERROR:
        return "So its probabilities can be believed."
    if abs(gap) < calibration_error / 2:
        return "So it is overconfident in some ranges and too cautious in others."
    return "So it is overconfident." if gap > 0 else "So it is too cautious."


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _class_rows(
    scores: Scores, confused: Sequence[tuple[int, int, int]], training_counts: Sequence[int] | None
) -> list[dict[str, Any]]:
    """One row a class that has pictures, the worst F1 first."""
    mistaken: dict[int, str] = {}
    for count, true, predicted in confused:
        mistaken.setdefault(true, f"{scores.classes[predicted].label} ({count:,})")
    rows = [
        {
            "scores": row,
            "training": None if training_counts is None else training_counts[index],
            "mistaken": mistaken.get(index, ""),
        }
        for index, row in enumerate(scores.classes)
        if row.support
    ]
    return sorted(rows, key=lambda row: row["scores"].f1)


def _confusion_cells(confusion: Sequence[Sequence[int]]) -> list[list[ConfusionCell]]:
    return [[ConfusionCell(count, count / max(1, sum(counts))) for count in counts] for counts in confusion]


def _confusion_picture(confusion: Sequence[Sequence[int]]) -> str:
    """One pixel a cell: the more of the true class, the less transparent, on a scale that shows small shares."""
    counts = np.asarray(confusion, dtype=np.float64)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    pixels = np.empty((*counts.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _WRONG
    pixels[np.arange(len(counts)), np.arange(len(counts)), :3] = _RIGHT
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    return graphic_url(pixels)

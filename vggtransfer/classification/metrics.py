"""How good the predicted probabilities are: accuracy, per-class scores, confusion and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, in [0, 1]; a ratio without anything to count is 0, as in scikit-learn."""

    label: str
    precision: float
    """Of the pictures predicted as this class, the part that is."""
    recall: float
    """Of the pictures of this class, the part that was found."""
    f1: float
    """Harmonic mean of precision and recall."""
    support: int
    """Pictures of this class."""


@dataclass(frozen=True)
class CalibrationBin:
    """The pictures whose predicted class has a probability in (low, high]; means of no pictures are 0."""

    low: float
    high: float
    pictures: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float


@dataclass(frozen=True)
class Scores:
    """Scores of one set of pictures. Accuracies and averages are in [0, 1]."""

    pictures: int
    top1_accuracy: float
    top5_accuracy: float | None
    """The true class is among the five most probable ones; None with 5 classes or fewer, where it says nothing."""
    macro_precision: float
    """Mean over classes, each counting the same. Classes without pictures are left out, here and below."""
    macro_recall: float
    """Also known as balanced accuracy."""
    macro_f1: float
    calibration_error: float
    """Expected difference between the probability of the predicted class and the accuracy, in 15 bins of equal width
    (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3)."""
    negative_log_likelihood: float
    """Mean over pictures of -log(probability of the true class), in nats."""
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Counts: rows are true classes, columns predicted ones."""


def compute_metrics(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Compares probabilities float [pictures, classes] with labels int64 [pictures]; there is at least one picture."""
    # Averaging over views may leave 1 + 1e-7, whose logarithm would be a loss below 0.
    probabilities = probabilities.float().clamp(0, 1)
    predicted = probabilities.argmax(dim=1)
    # torchmetrics has this too, but takes longer to import than many a run has pictures to score.
    places = labels * len(classes) + predicted
    confusion = torch.bincount(places, minlength=len(classes) ** 2).view(len(classes), len(classes))
    rows = _class_scores(confusion, classes)
    present = [row for row in rows if row.support]
    true_probability = probabilities.gather(1, labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return Scores(
        pictures=len(labels),
        top1_accuracy=(predicted == labels).double().mean().item(),
        top5_accuracy=_top_accuracy(probabilities, labels, 5) if len(classes) > 5 else None,
        macro_precision=sum(row.precision for row in present) / len(present),
        macro_recall=sum(row.recall for row in present) / len(present),
        macro_f1=sum(row.f1 for row in present) / len(present),
        calibration_error=sum(
            one.pictures / len(labels) * abs(one.accuracy - one.confidence)
            for one in calibration_bins(probabilities, labels)
        ),
        negative_log_likelihood=-true_probability.log().double().mean().item(),
        classes=rows,
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def calibration_bins(probabilities: Tensor, labels: Tensor) -> tuple[CalibrationBin, ...]:
    """Sorts pictures by the probability of their predicted class into 15 bins of equal width (Guo et al. 2017)."""
    confidence, predicted = probabilities.float().clamp(0, 1).max(dim=1)
    right = (predicted == labels).double()
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1)
    place = torch.bucketize(confidence, edges).clamp(1, CALIBRATION_BINS) - 1
    counts = torch.bincount(place, minlength=CALIBRATION_BINS)
    means = [
        (torch.bincount(place, weights=values, minlength=CALIBRATION_BINS) / counts.clamp_min(1)).tolist()
        for values in (confidence.double(), right)
    ]
    limits = edges.tolist()
    return tuple(
        CalibrationBin(*values) for values in zip(limits[:-1], limits[1:], counts.tolist(), *means, strict=True)
    )


def most_confused(confusion: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Returns (pictures, true class, predicted class) of all confusions, the most frequent first."""
    errors = [
        (count, true, predicted)
        for true, counts in enumerate(confusion)
        for predicted, count in enumerate(counts)
        if count and true != predicted
    ]
    return sorted(errors, key=lambda error: -error[0])


def _top_accuracy(probabilities: Tensor, labels: Tensor, k: int) -> float:
    return (probabilities.topk(k, dim=1).indices == labels[:, None]).any(dim=1).double().mean().item()


def _class_scores(confusion: Tensor, classes: Sequence[str]) -> tuple[ClassScores, ...]:
    counts = confusion.double()
    correct, support, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    columns = (
        correct / predicted.clamp_min(1),
        correct / support.clamp_min(1),
        2 * correct / (support + predicted).clamp_min(1),
        support.long(),
    )
    return tuple(
        ClassScores(label, *values)
        for label, *values in zip(classes, *(column.tolist() for column in columns), strict=True)
    )

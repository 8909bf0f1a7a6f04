from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import sklearn.metrics
import torch

from vggtransfer.classification.metrics import Scores, calibration_bins, compute_metrics, most_confused


def random_case(*, pictures: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (pictures,), generator=generator)
    logits = torch.randn(pictures, classes, generator=generator)
    logits[torch.arange(pictures), labels] += 1.5
    return logits.softmax(dim=1), labels


def metrics(probabilities: list[list[float]], labels: list[int]) -> Scores:
    classes = [f"class {index}" for index in range(len(probabilities[0]))]
    return compute_metrics(torch.tensor(probabilities), torch.tensor(labels), classes)


def test_a_case_computed_by_hand() -> None:
    result = metrics([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], [0, 1, 1, 0])
    assert result.confusion == ((2, 0), (1, 1))
    assert result.top1_accuracy == 0.75
    assert result.top5_accuracy is None
    first, second = result.classes
    assert (first.precision, first.recall, first.f1, first.support) == pytest.approx((2 / 3, 1, 0.8, 2))
    assert (second.precision, second.recall, second.f1, second.support) == pytest.approx((1, 0.5, 2 / 3, 2))
    assert result.macro_precision == pytest.approx(5 / 6)
    assert result.macro_recall == pytest.approx(0.75)
    assert result.negative_log_likelihood == pytest.approx(-math.log(0.9 * 0.4 * 0.8 * 0.7) / 4)
    # Each picture is in a bin of its own: the mean of |0.9 - 1|, |0.6 - 0|, |0.8 - 1| and |0.7 - 1|.
    assert result.calibration_error == pytest.approx(0.3)


def test_calibration_error_averages_within_a_bin() -> None:
    # All four are sure of class 0 with 0.75, three of them rightly: perfectly calibrated.
    assert metrics([[0.75, 0.25]] * 4, [0, 0, 0, 1]).calibration_error == pytest.approx(0, abs=1e-7)
    assert metrics([[0.75, 0.25]] * 4, [0, 0, 1, 1]).calibration_error == pytest.approx(0.25)


def test_calibration_error_is_that_of_guo_et_al() -> None:
    probabilities, labels = random_case(pictures=500, classes=7)
    confidence, predicted = probabilities.double().max(dim=1)
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = (predicted == labels)[inside].double().mean() - confidence[inside].mean()
            expected += abs(gap.item()) * inside.double().mean().item()
    assert expected > 0.01
    assert compute_metrics(probabilities, labels, list("abcdefg")).calibration_error == pytest.approx(
        expected, abs=1e-5
    )


def test_calibration_bins_hold_every_picture_once() -> None:
    probabilities, labels = random_case(pictures=500, classes=7)
    bins = calibration_bins(probabilities, labels)
    assert len(bins) == 15
    assert sum(one.pictures for one in bins) == 500
    confidence, predicted = probabilities.max(dim=1)
    assert sum(one.pictures * one.confidence for one in bins) == pytest.approx(confidence.double().sum().item())
    assert sum(one.pictures * one.accuracy for one in bins) == pytest.approx((predicted == labels).sum().item())
    for one in bins:
        assert one.high - one.low == pytest.approx(1 / 15)
        assert not one.pictures or one.low <= one.confidence <= one.high


def test_calibration_bins_at_their_edges() -> None:
    # Bins are open below and closed above: exactly 0.2 is in the third of fifteen, 1 in the last.
    bins = calibration_bins(torch.tensor([[0.2] * 5, [1.0, 0, 0, 0, 0]]), torch.tensor([0, 1]))
    assert [index for index, one in enumerate(bins) if one.pictures] == [2, 14]
    assert (bins[14].confidence, bins[14].accuracy) == (1, 0)
    assert (bins[0].confidence, bins[0].accuracy) == (0, 0)


def test_most_confused() -> None:
    assert most_confused([[9, 1, 0], [4, 9, 1], [0, 2, 9]]) == [(4, 1, 0), (2, 2, 1), (1, 0, 1), (1, 1, 2)]
    assert most_confused([[3, 0], [0, 0]]) == []


def test_certain_probabilities_are_neither_softened_nor_infinite() -> None:
    right = metrics([[1.0, 0.0], [0.0, 1.0000001]], [0, 1])
    assert right.calibration_error == 0
    assert right.negative_log_likelihood == 0
    wrong = metrics([[1.0, 0.0]], [1])
    assert wrong.calibration_error == 1
    assert 80 < wrong.negative_log_likelihood < 90


@pytest.mark.parametrize("classes", [2, 3, 12, 40])
def test_agrees_with_scikit_learn(classes: int) -> None:
    probabilities, labels = random_case(pictures=400, classes=classes, seed=classes)
    result = compute_metrics(probabilities, labels, [str(index) for index in range(classes)])
    predicted = probabilities.argmax(dim=1).numpy()
    every = list(range(classes))
    assert result.pictures == 400
    assert result.top1_accuracy == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([getattr(row, name) for row in result.classes], values, rtol=1e-12)
    macro = sklearn.metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    assert (result.macro_precision, result.macro_recall, result.macro_f1) == pytest.approx(macro[:3])
    np.testing.assert_array_equal(result.confusion, sklearn.metrics.confusion_matrix(labels, predicted, labels=every))
    normalised = probabilities.double() / probabilities.double().sum(dim=1, keepdim=True)
    loss = sklearn.metrics.log_loss(labels, normalised.numpy(), labels=every)
    assert result.negative_log_likelihood == pytest.approx(loss, rel=1e-5)
    if classes > 5:
        top5 = sklearn.metrics.top_k_accuracy_score(labels, probabilities.numpy(), k=5, labels=every)
        assert result.top5_accuracy == pytest.approx(top5)
    else:
        assert result.top5_accuracy is None


def test_classes_without_pictures_are_left_out_of_the_averages() -> None:
    # Class 2 has no pictures, and class 1 is once taken for it.
    result = metrics([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], [0, 1, 1])
    assert result.classes[2] == type(result.classes[2])("class 2", 0.0, 0.0, 0.0, 0)
    assert result.macro_recall == pytest.approx(0.75)
    assert result.macro_precision == 1


def test_a_thousand_classes() -> None:
    probabilities, labels = random_case(pictures=3000, classes=1000)
    result = compute_metrics(probabilities, labels, [str(index) for index in range(1000)])
    assert result.top5_accuracy is not None
    assert 1 > result.top5_accuracy > result.top1_accuracy > 0
    assert sum(map(sum, result.confusion)) == 3000

from __future__ import annotations

import pytest
import torch

from vggtransfer.classification.metrics import compute_metrics
from vggtransfer.classification.report_scores import scores_content


def last_sentence(answers: list[tuple[float, int, int]]) -> tuple[str, float]:
    """The sentence on calibration, and the calibration error, of two classes.

    Args:
        answers: (probability of the predicted class, pictures it is given to, how many of them rightly).
    """
    rows, labels = [], []
    for probability, pictures, right in answers:
        rows += [[probability, 1 - probability]] * pictures
        labels += [0] * right + [1] * (pictures - right)
    probabilities, truth = torch.tensor(rows), torch.tensor(labels)
    scores = compute_metrics(probabilities, truth, ["a", "b"])
    return scores_content(scores, probabilities, truth)["sentences"][-1], scores.calibration_error


@pytest.mark.parametrize(
    ("answers", "error", "verdict"),
    [
        ([(0.9, 100, 90), (0.6, 100, 61)], 0.005, "can be believed."),
        ([(0.9, 100, 70)], 0.2, "is overconfident."),
        ([(0.6, 100, 90)], 0.3, "is too cautious."),
        # Mean probability and accuracy are both 75%.
        ([(0.95, 100, 75), (0.55, 100, 75)], 0.2, "is overconfident in some ranges and too cautious in others."),
        # As before, but a little more of the one.
        ([(0.95, 100, 70), (0.55, 100, 75)], 0.225, "is overconfident in some ranges and too cautious in others."),
        ([(0.95, 100, 45), (0.55, 100, 60)], 0.275, "is overconfident."),
    ],
)
def test_the_verdict_agrees_with_the_calibration_error(
    answers: list[tuple[float, int, int]], error: float, verdict: str
) -> None:
    sentence, found = last_sentence(answers)
    assert found == pytest.approx(error, abs=1e-6)
    assert sentence.endswith(verdict)
    assert f"{error:.1%}" in sentence

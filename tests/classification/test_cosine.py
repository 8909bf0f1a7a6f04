from __future__ import annotations

import math

import pytest
import torch

from vggtransfer.classification.cosine import COSINE_SCALE, CosineClassifier, with_margin
from vggtransfer.classification.objective import ClassificationObjective


def test_scores_are_scaled_cosines_in_float32_even_under_autocast() -> None:
    classifier = CosineClassifier(5, 3)
    x = torch.randn(4, 5)
    expected = [[float(torch.cosine_similarity(row, w, dim=0)) for w in classifier.weight.detach()] for row in x]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = classifier(7 * x)
    torch.testing.assert_close(found, COSINE_SCALE * torch.tensor(expected))


def test_margin_turns_the_right_class_away_and_falls_up_to_the_far_side() -> None:
    angles = torch.linspace(0.01, math.pi - 0.01, 50)
    logits = COSINE_SCALE * torch.stack([angles.cos(), torch.zeros(50)], dim=1)
    found = with_margin(logits, torch.zeros(50, dtype=torch.long), 0.4)
    near = angles < math.pi - 0.4
    torch.testing.assert_close(found[near, 0], COSINE_SCALE * (angles[near] + 0.4).cos(), atol=1e-3, rtol=1e-4)
    assert (found[:, 0].diff() < 0).all()
    assert (found[:, 0] < logits[:, 0]).all()
    assert torch.equal(found[:, 1], logits[:, 1])


def test_gradient_stays_finite_where_a_picture_lies_on_its_class() -> None:
    logits = torch.tensor([[COSINE_SCALE, -COSINE_SCALE], [-COSINE_SCALE, COSINE_SCALE]], requires_grad=True)
    with_margin(logits, torch.tensor([0, 0]), 0.3).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_objective_trains_with_the_margin_and_counts_and_validates_without() -> None:
    logits = COSINE_SCALE * torch.tensor([[0.5, 0.4], [0.2, 0.6]])
    targets = torch.tensor([0, 1])
    objective = ClassificationObjective(2, margin=0.3)
    model = torch.nn.Identity()
    loss, right = objective.training(model, logits, targets)
    aimed = [(math.cos(math.acos(0.5) + 0.3), 0.4), (math.cos(math.acos(0.6) + 0.3), 0.2)]
    expected = sum(math.log1p(math.exp(COSINE_SCALE * (other - own))) for own, other in aimed) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert int(right) == 2
    plain = sum(math.log1p(math.exp(COSINE_SCALE * (other - own))) for own, other in [(0.5, 0.4), (0.6, 0.2)])
    assert float(objective.validation(model, logits, targets)[0]) == pytest.approx(plain, rel=1e-4)

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.classification.objective import ClassificationObjective, balanced_class_weights

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-2.0, 1.0, 3.0], [1.0, 4.0, 0.0]])
TARGETS = torch.tensor([0, 1, 2, 0])
RIGHT = 2  # of the four rows, the first and the third


class Fixed(nn.Module):
    """Answers LOGITS whatever it sees, and remembers what that was."""

    def __init__(self, logits: Tensor = LOGITS) -> None:
        super().__init__()
        self.logits = logits
        self.seen = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return self.logits


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def picture_losses(logits: Tensor, targets: Tensor) -> list[float]:
    """-log softmax of the true class, written out."""
    return [
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(logits.tolist(), targets.tolist(), strict=True)
    ]


def test_plain_training_loss_is_the_mean() -> None:
    images = torch.rand(4, 3, 8, 8)
    model = Fixed()
    loss, right = ClassificationObjective(3).training(model, images, TARGETS)
    assert float(loss) == pytest.approx(sum(picture_losses(LOGITS, TARGETS)) / 4)
    assert int(right) == RIGHT
    assert model.seen is images


def test_label_smoothing_shares_a_part_out_over_all_classes() -> None:
    loss, right = ClassificationObjective(3, label_smoothing=0.3).training(Fixed(), torch.rand(4, 3, 8, 8), TARGETS)
    of_class = [sum(picture_losses(LOGITS, torch.full((4,), label))) / 4 for label in range(3)]
    expected = 0.7 * sum(picture_losses(LOGITS, TARGETS)) / 4 + 0.3 * sum(of_class) / 3
    assert float(loss) == pytest.approx(expected)
    assert int(right) == RIGHT


def test_class_weights_multiply_the_losses_of_their_class() -> None:
    weights = torch.tensor([0.5, 3.0, 1.25])
    loss, right = ClassificationObjective(3, class_weights=weights).training(Fixed(), torch.rand(4, 3, 8, 8), TARGETS)
    by_picture = picture_losses(LOGITS, TARGETS)
    # Not divided by the sum of the batch's weights: that would take the weight back from a batch of one class.
    assert float(loss) == pytest.approx(
        sum(weights[label].item() * value for label, value in zip(TARGETS.tolist(), by_picture, strict=True)) / 4
    )
    assert int(right) == RIGHT


def test_balanced_class_weights() -> None:
    labels = [0] * 6 + [1] * 3 + [2]
    weights = balanced_class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1)])
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert balanced_class_weights([1, 0, 1, 0], 2).tolist() == [1, 1]


def own_share(name: str, before: Tensor, after: Tensor) -> float:
    """How much of each picture is its own; pictures are of one value each, and the partner is the row before."""
    partner = before.roll(1, 0)
    if name == "mixup":
        shares = (after - partner) / (before - partner)
        assert float(shares.max() - shares.min()) < 1e-5
        return float(shares.mean())
    assert bool(((after == before) | (after == partner)).all())
    return float((after == before).float().mean())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_mixes_the_losses_as_it_mixes_the_pictures(name: str, label_smoothing: float) -> None:
    images = torch.tensor([0.0, 0.3, 0.7, 1.0]).view(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous()
    objective = ClassificationObjective(3, label_smoothing=label_smoothing, **{name: 1.0})  # type: ignore[arg-type]
    shares = []
    for _ in range(8):
        model = Fixed()
        loss, right = objective.training(model, images.clone(), TARGETS)
        share = own_share(name, images, model.seen)
        own, partner = (
            F.cross_entropy(LOGITS, targets, label_smoothing=label_smoothing) for targets in (TARGETS, TARGETS.roll(1))
        )
        assert float(loss) == pytest.approx(float(share * own + (1 - share) * partner), abs=1e-4)
        # An answer counts if it names the picture's own label, however little of the picture is left.
        assert int(right) == RIGHT
        shares.append(share)
    assert min(shares) < 0.9
    assert max(shares) - min(shares) > 0.1


def test_both_mixings_take_turns() -> None:
    images = torch.tensor([0.0, 0.3, 0.7, 1.0]).view(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous()
    objective = ClassificationObjective(3, mixup=1.0, cutmix=1.0)
    kinds = set()
    for _ in range(20):
        model = Fixed()
        objective.training(model, images.clone(), TARGETS)
        whole = bool(torch.isin(model.seen, images.flatten()).all())
        kinds.add("cutmix" if whole else "mixup")
    assert kinds == {"cutmix", "mixup"}


def test_validation_is_a_plain_sum_whatever_training_does() -> None:
    objective = ClassificationObjective(
        3, label_smoothing=0.3, mixup=1.0, cutmix=1.0, class_weights=torch.tensor([0.5, 3.0, 1.25])
    )
    images = torch.rand(4, 3, 8, 8)
    model = Fixed()
    loss, right = objective.validation(model, images, TARGETS)
    assert float(loss) == pytest.approx(sum(picture_losses(LOGITS, TARGETS)))
    assert int(right) == RIGHT
    assert model.seen is images


def test_losses_are_in_float32_whatever_the_logits() -> None:
    logits = LOGITS.bfloat16()
    objective = ClassificationObjective(3)
    for loss, _ in (
        objective.training(Fixed(logits), torch.rand(4, 3, 8, 8), TARGETS),
        objective.validation(Fixed(logits), torch.rand(4, 3, 8, 8), TARGETS),
    ):
        assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(sum(picture_losses(logits.float(), TARGETS)), rel=1e-6)


def test_gradients_reach_the_model_through_mixing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    loss, _ = ClassificationObjective(3, mixup=0.4).training(model, torch.rand(4, 3, 16, 16), TARGETS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from vggtransfer.errors import OptionError
from vggtransfer.segmentation.losses import SegmentationLoss
from vggtransfer.segmentation.lovasz import lovasz_extension
from vggtransfer.segmentation.task_names import LossName


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets() -> Tensor:
    """Classes, some of them ignored."""
    targets = torch.randint(0, 4, (2, 9, 8), generator=torch.Generator().manual_seed(1))
    targets[0, :3] = 255
    return targets


@pytest.fixture
def labels(targets: Tensor) -> Tensor:
    """The same as one map per class."""
    maps = (targets[:, None] == torch.arange(4).view(-1, 1, 1)).long()
    return maps.masked_fill((targets == 255)[:, None], 255)


def test_cross_entropy_is_torchs(logits: Tensor, targets: Tensor, labels: Tensor) -> None:
    weights = torch.tensor([0.5, 1.0, 3.0, 2.0])
    expected = nn.CrossEntropyLoss(weights, ignore_index=255, label_smoothing=0.1)(logits, targets)
    found = SegmentationLoss("ce", class_weights=weights, label_smoothing=0.1)(logits, targets.to(torch.uint8))
    torch.testing.assert_close(found, expected)

    counted = labels != 255
    single = nn.BCEWithLogitsLoss(pos_weight=weights[:, None, None], reduction="none")
    positive = torch.where(labels == 1, weights[:, None, None], 1.0) * counted
    expected = (single(logits, (labels == 1).float()) * counted).sum() / positive.sum()
    torch.testing.assert_close(
        SegmentationLoss("ce", task="multilabel", class_weights=weights)(logits, labels), expected
    )


def test_focal_loss_is_that_of_the_paper(logits: Tensor, targets: Tensor, labels: Tensor) -> None:
    probabilities = logits.double().softmax(dim=1)
    right = probabilities.gather(1, targets.where(targets != 255, 0)[:, None])[:, 0][targets != 255]
    expected = (-((1 - right) ** 2) * right.log()).mean().float()
    torch.testing.assert_close(SegmentationLoss("focal")(logits, targets), expected)

    counted = labels[:, 0] != 255
    expected = sigmoid_focal_loss(logits[:, 0][counted], labels[:, 0][counted].float(), alpha=-1, reduction="mean")
    torch.testing.assert_close(SegmentationLoss("focal", task="binary")(logits[:, :1], labels[:, 0]), expected)


def test_dice_and_lovasz_are_smps(logits: Tensor, targets: Tensor, labels: Tensor) -> None:
    for task, aims in (("multiclass", targets), ("multilabel", labels)):
        expected = smp.losses.DiceLoss(task, ignore_index=255, eps=1e-12)(logits, aims)
        torch.testing.assert_close(SegmentationLoss("dice", task=task)(logits, aims), expected)
    expected = smp.losses.LovaszLoss("multiclass", ignore_index=255)(logits, targets)
    torch.testing.assert_close(SegmentationLoss("lovasz")(logits, targets), expected)
    expected = smp.losses.LovaszLoss("binary", ignore_index=255)(logits[:, 0], labels[:, 0])
    torch.testing.assert_close(SegmentationLoss("lovasz", task="binary")(logits[:, :1], labels[:, 0]), expected)


def test_lovasz_extends_what_a_set_of_wrong_pixels_costs() -> None:
    truth = torch.tensor([True, True, False, False, True])
    for wrong in itertools.product([0.0, 1.0], repeat=5):
        errors = torch.tensor(wrong)
        predicted = truth ^ errors.bool()
        union = (truth | predicted).sum()
        expected = 1 - (truth & predicted).sum() / union
        torch.testing.assert_close(lovasz_extension(errors[None], truth[None])[0], expected)


def test_only_classes_in_the_targets_count_for_dice_and_lovasz(logits: Tensor, targets: Tensor) -> None:
    some = targets.where(targets != 3, 255)
    without = logits.clone()
    without[:, 3] = -torch.inf
    for name in ("dice", "lovasz"):
        loss = SegmentationLoss(name)
        assert loss(without, some) < loss(logits, some) < 1


@pytest.mark.parametrize("name", get_args(LossName))
def test_the_truth_costs_nothing_and_nothing_counted_is_zero(
    name: LossName, logits: Tensor, targets: Tensor, labels: Tensor
) -> None:
    for task, scores, aims in (
        ("multiclass", logits, targets),
        ("multilabel", logits, labels),
        ("binary", logits[:, :1], labels[:, 0]),
    ):
        loss = SegmentationLoss(name, task=task)
        truth = (aims == 1) if task != "multiclass" else (labels == 1)
        perfect = torch.where(truth.view(scores.shape), 50.0, -50.0)
        assert loss(perfect, aims) == pytest.approx(0, abs=1e-6)
        scores = scores.clone().requires_grad_()
        value = loss(scores, aims)
        parts = [SegmentationLoss(part, task=task)(scores, aims) for part in name.split("+")]
        torch.testing.assert_close(value, torch.stack(parts).sum())
        (gradient,) = torch.autograd.grad(value, scores)
        assert gradient.abs().sum() > 0
        ignored = (aims == 255).view(2, -1, 9, 8).expand_as(gradient)
        assert not gradient[ignored].any()
        nothing = loss(scores, torch.full_like(aims, 255))
        assert nothing == 0
        assert not torch.autograd.grad(nothing, scores)[0].any()


def test_half_precision_is_computed_in_float32(logits: Tensor, targets: Tensor) -> None:
    loss = SegmentationLoss("ce+lovasz")
    low = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(low, targets)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(low.float(), targets))


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(OptionError, match="loss='iou' is not possible: use ce, dice"):
        SegmentationLoss("iou")

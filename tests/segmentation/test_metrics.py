from __future__ import annotations

import math

import pytest
import torch
from torchmetrics import classification as reference

from vggtransfer.segmentation.metrics import ConfusionMatrix
from vggtransfer.segmentation.probabilities import masks, probabilities, with_mirror_image


def test_multiclass_scores_are_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, 4, (3, 7, 9), generator=generator)
    targets = torch.randint(0, 3, (3, 7, 9), generator=generator)
    targets[:, :2] = 255
    parts = [ConfusionMatrix(5), ConfusionMatrix(5)]  # class 4 is nowhere, class 3 is only predicted
    parts[0].add(predicted[:1], targets[:1].to(torch.uint8))
    parts[1].add(predicted[1:], targets[1:])
    parts[0] += parts[1]
    scores = parts[0].scores()
    options = {"num_classes": 5, "ignore_index": 255}
    assert torch.equal(parts[0].counts, reference.MulticlassConfusionMatrix(**options)(predicted, targets))

    def of(metric: type, average: str | None) -> torch.Tensor:
        return metric(**options, average=average)(predicted, targets)

    iou = of(reference.MulticlassJaccardIndex, None)
    torch.testing.assert_close(torch.tensor(scores.iou)[:4], iou[:4])
    assert math.isnan(scores.iou[4])
    assert scores.mean_iou == pytest.approx(iou[:4].mean().item())
    assert scores.weighted_iou == pytest.approx(of(reference.MulticlassJaccardIndex, "weighted").item())
    assert scores.pixel_accuracy == pytest.approx(of(reference.MulticlassAccuracy, "micro").item())
    torch.testing.assert_close(torch.tensor(scores.dice)[:4], of(reference.MulticlassF1Score, None)[:4])
    recall = of(reference.MulticlassRecall, None)
    assert scores.mean_accuracy == pytest.approx(recall[:3].mean().item())


@pytest.mark.parametrize("task", ["multilabel", "binary"])
def test_scores_of_single_labels_are_torchmetrics(task: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 7, 9) if task == "multilabel" else (2, 7, 9)
    predicted, targets = (torch.randint(0, 2, shape, generator=generator) for _ in range(2))
    targets[:, ..., :2, :] = 255
    classes = 3 if task == "multilabel" else 1
    matrix = ConfusionMatrix(classes, task=task)
    matrix.add(predicted, targets)
    scores = matrix.scores()
    for number in range(classes):
        one, other = (mask[:, number] if task == "multilabel" else mask for mask in (predicted, targets))
        assert scores.iou[number] == pytest.approx(reference.BinaryJaccardIndex(ignore_index=255)(one, other).item())
        assert scores.dice[number] == pytest.approx(reference.BinaryF1Score(ignore_index=255)(one, other).item())
    counted = targets != 255
    assert scores.pixel_accuracy == pytest.approx((predicted == targets)[counted].float().mean().item())
    assert scores.mean_iou == pytest.approx(sum(scores.iou) / classes)


def test_nothing_counted_is_not_a_number() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 255))
    assert math.isnan(matrix.scores().mean_iou)


def test_probabilities_and_what_they_decide() -> None:
    logits = torch.tensor([2.0, -1.0, 0.0]).view(1, 3, 1, 1).bfloat16()
    assert probabilities(logits, "multiclass").dtype == torch.float32
    assert probabilities(logits, "multiclass").sum() == pytest.approx(1)
    assert masks(logits, "multiclass").tolist() == [[[0]]]
    single = probabilities(logits, "multilabel")
    torch.testing.assert_close(single.flatten(), torch.tensor([2.0, -1.0, 0.0]).sigmoid())
    assert masks(single, "multilabel").tolist() == [[[[1]], [[0]], [[1]]]]
    assert masks(single[:, 1:2], "binary").tolist() == [[[0]]]


def test_mirror_images_are_mirrored_back() -> None:
    ramp = torch.arange(6.0).view(1, 1, 1, 6)
    picture = torch.rand(2, 3, 4, 6)
    found = with_mirror_image(lambda pictures: pictures + ramp)(picture)
    torch.testing.assert_close(found, picture + 2.5)

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from vggtransfer.segmentation.boundary import BoundaryF1, boundaries, within


def blobs(seed: int, *, classes: int) -> torch.Tensor:
    """Smooth random regions [40, 50]."""
    noise = np.random.default_rng(seed).standard_normal((classes, 40, 50))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 5, 5)).argmax(axis=0))


def test_boundaries_run_between_classes_that_count_and_nowhere_else() -> None:
    mask = torch.zeros(1, 5, 6, dtype=torch.bool)
    mask[0, :, :3] = True
    counted = torch.ones_like(mask)
    expected = torch.zeros_like(mask)
    expected[0, :, 2] = True
    assert torch.equal(boundaries(mask, counted), expected)  # not along the picture's sides
    counted[0, :3, 3] = False  # and not beside pixels that may belong to either
    expected[0, :2, 2] = False
    assert torch.equal(boundaries(mask, counted), expected)


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.24, 4.5])
def test_distance_is_euclidean(radius: float) -> None:
    points = torch.rand(2, 20, 23, generator=torch.Generator().manual_seed(0)) > 0.98
    expected = [ndimage.distance_transform_edt(~one.numpy()) <= radius for one in points]
    assert torch.equal(within(points, radius), torch.from_numpy(np.stack(expected)))


def test_scores_are_those_of_distance_transforms() -> None:
    pairs = [(blobs(1, classes=3), blobs(2, classes=3)), (blobs(3, classes=2), blobs(4, classes=2))]
    score = BoundaryF1(4, tolerance=0.05)
    radius = 0.05 * math.hypot(40, 50)
    expected: list[list[float]] = [[], [], [], []]
    for predicted, truth in pairs:
        score.add(predicted[None], truth[None].to(torch.uint8))
        for number in range(3):
            edges = []
            for mask in (predicted.numpy() == number, truth.numpy() == number):
                inside = ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
                edges.append(mask & ~inside)
            if not (edges[0].any() or edges[1].any()):
                continue
            if not (edges[0].any() and edges[1].any()):
                expected[number].append(0.0)
                continue
            distances = [ndimage.distance_transform_edt(~edge) for edge in edges]
            precision = (distances[1][edges[0]] <= radius).mean()
            recall = (distances[0][edges[1]] <= radius).mean()
            expected[number].append(2 * precision * recall / max(precision + recall, 1e-9))
    assert score.pictures.tolist() == [len(scores) for scores in expected]
    assert score.scores()[:3] == pytest.approx([sum(scores) / len(scores) for scores in expected[:3]])
    assert math.isnan(score.scores()[3])


def test_equal_masks_score_one_whatever_is_ignored_and_for_every_task() -> None:
    truth = (blobs(5, classes=2) == 1).long()
    predicted = truth.clone()
    truth[10:20] = 255
    predicted[10:20] = 0
    for task, shape in (("multiclass", (1, 40, 50)), ("binary", (1, 40, 50)), ("multilabel", (1, 1, 40, 50))):
        score = BoundaryF1(2 if task == "multiclass" else 1, task=task)
        score.add(predicted.view(shape), truth.view(shape))
        assert set(score.scores()) == {1.0}

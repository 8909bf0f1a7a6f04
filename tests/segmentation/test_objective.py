from pathlib import Path

import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_jaccard_index

from vggtransfer.data.seen_size import SeenSize
from vggtransfer.segmentation import objective as objective_module
from vggtransfer.segmentation.dataset import batch_kinds
from vggtransfer.segmentation.layouts import MaskedSample
from vggtransfer.segmentation.objective import SegmentationObjective

IMAGES = torch.rand(4, 3, 12, 16, generator=torch.Generator().manual_seed(0))
SHAPES = {"multiclass": (3, (4, 24, 32)), "binary": (1, (4, 24, 32)), "multilabel": (3, (4, 3, 24, 32))}


def case(task, loss):
    torch.manual_seed(1)
    classes, shape = SHAPES[task]
    targets = torch.randint(0, 3 if task == "multiclass" else 2, shape, dtype=torch.uint8)
    targets[0, ..., :5] = 255
    return SegmentationObjective(loss, classes=classes, task=task), nn.Conv2d(3, classes, 1), targets


@pytest.mark.parametrize("task", SHAPES)
@pytest.mark.parametrize("loss", ["ce+dice", "focal+lovasz"])
def test_validation_does_not_depend_on_which_pictures_share_a_batch(task, loss):
    objective, model, targets = case(task, loss)
    with torch.inference_mode():
        together = objective.validation(model, IMAGES, targets)
        alone = [objective.validation(model, IMAGES[[index]], targets[[index]]) for index in range(4)]
    assert float(together[0]) == pytest.approx(sum(float(one) for one, _ in alone), rel=1e-5)
    assert torch.equal(together[1], sum(sums for _, sums in alone))
    assert together[1].shape == objective.no_sums().shape


def test_logits_in_full_size_are_made_for_one_picture_at_a_time(monkeypatch):
    objective, model, targets = case("multiclass", "ce")
    made, full_size = [], objective_module.full_size
    monkeypatch.setattr(objective_module, "full_size", lambda *both: made.append(full_size(*both)) or made[-1])
    objective.validation(model, IMAGES, targets)
    assert [one.shape for one in made] == [(1, 3, 24, 32)] * 4


def test_scores_are_those_of_torchmetrics():
    objective, model, targets = case("multiclass", "ce")
    with torch.inference_mode():
        _, sums = objective.validation(model, IMAGES, targets)
        painted = torch.nn.functional.interpolate(model(IMAGES), size=(24, 32), mode="bilinear").argmax(dim=1)
    expected = multiclass_jaccard_index(painted, targets.long(), num_classes=3, ignore_index=255)
    assert objective.scores(sums, 4)["mean_iou"] == pytest.approx(float(expected), abs=1e-6)
    assert objective.scores(objective.no_sums(), 0) == {"mean_iou": 0.0, "pixel_accuracy": 0.0, "mean_dice": 0.0}


def test_pictures_much_larger_than_the_crops_are_validated_alone():
    samples = [MaskedSample(Path(name), ()) for name in "abcd"]
    sizes = dict(zip((one.path for one in samples), [(60, 80), (60, 80), (200, 200), (200, 200)], strict=True))
    kinds = batch_kinds(samples, sizes, SeenSize(), crop=(64, 64))
    assert kinds[0] == kinds[1]
    assert len(set(kinds)) == 3
    assert len(set(batch_kinds(samples, sizes, SeenSize(short_side=64), crop=(64, 64)))) == 2


@pytest.mark.parametrize("task", SHAPES)
def test_training_tells_the_share_of_right_pixels(task):
    objective, model, targets = case(task, "ce")
    small = targets[..., ::2, ::2]
    loss, right = objective.training(model, IMAGES, small)
    loss.backward()
    assert model.weight.grad.abs().sum() > 0
    with torch.no_grad():
        painted = objective._painted(model(IMAGES))
    counted = small != 255
    shares = [(painted[n] == small[n])[counted[n]].float().mean() for n in range(4)]
    assert float(right) == pytest.approx(float(sum(shares)), abs=1e-5)


def test_very_large_pictures_are_scored_in_tiles(monkeypatch):
    objective, model, targets = case("multiclass", "ce")
    seen = []
    model.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[2:])))
    with torch.inference_mode():
        whole = objective.validation(model, IMAGES, targets)
        monkeypatch.setattr(objective_module, "_MOST_PIXELS", 100)
        monkeypatch.setattr(objective_module, "_TILE", 8)
        tiled = objective.validation(model, IMAGES, targets)
    assert {(12, 16), (8, 8)} == set(seen)
    assert float(tiled[0]) == pytest.approx(float(whole[0]), rel=1e-4)

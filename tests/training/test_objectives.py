"""The loop under objectives that have other scores than accuracy, or none."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.training.contract import FitOptions, Measure
from vggtransfer.training.loop import Fit
from vggtransfer.training.schedule import Stage
from vggtransfer.training.session import Session

OPTIONS = FitOptions(
    epochs=3,
    stages=(Stage(0, "none"),),
    batch_size=2,
    accumulate=1,
    optimizer="sgd",
    learning_rate=0.1,
    backbone_learning_rate=0.1,
    layer_decay=1.0,
    weight_decay=0.0,
    momentum=0.0,
    warmup_epochs=0.0,
    gradient_clip=None,
    ema=0.0,
    patience=None,
    precision=torch.float32,
    channels_last=False,
    compile=False,
    workers=0,
    seed=0,
    checkpoint_minutes=10.0,
)


class Pictures(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, key):
        _, index = key
        return torch.full((3, 32, 32), 60 * index, dtype=torch.uint8), float(index), index


class Brightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = VGGEncoder("vgg11", weights=None, depth=1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        return self.scale * images.mean(dim=(1, 2, 3))


class LossAlone:
    """Mean square error, lower is better."""

    training_measure: Measure | None = None

    def training(self, model, images, targets):
        return F.mse_loss(model(images), targets.float()), torch.zeros(())

    def validation(self, model, images, targets):
        return F.mse_loss(model(images), targets.float(), reduction="sum"), torch.zeros(0)

    def no_sums(self):
        return torch.zeros(0)

    def scores(self, sums, pictures):
        return {}


class Decibels(LossAlone):
    """With a negative score made of sums that are no mean, such as mean IoU or a signal-to-noise ratio."""

    training_measure = Measure("absolute_error", ".2f")

    def training(self, model, images, targets):
        answers = model(images)
        return F.mse_loss(answers, targets.float()), (answers - targets).abs().sum()

    def validation(self, model, images, targets):
        loss, _ = super().validation(model, images, targets)
        return loss, torch.stack([loss.detach().double(), (targets.double() ** 2).sum()])

    def no_sums(self):
        return torch.zeros(2, dtype=torch.float64)

    def scores(self, sums, pictures):
        error, power = sums.tolist()
        return {"decibels": -100 - error / power, "pictures": float(pictures)}


@pytest.mark.parametrize("objective", [LossAlone(), Decibels()])
def test_scores_decide_which_model_is_best(objective, tmp_path, capsys):
    model, saved = Brightness(), []
    fit = Fit(
        model,
        encoder=model.encoder,
        objective=objective,
        train=Pictures(),
        validation=Pictures(),
        options=OPTIONS,
        session=Session("cpu"),
        run=tmp_path,
        save_model=lambda best: saved.append(best.scale.item()),
        after_epoch=lambda row: None,
        identity={},
        validation_kinds=[0, 1, 0, 1],
    )
    progress = fit.run()
    losses = [row["val_loss"] for row in progress.history]
    assert losses[0] > losses[1] > losses[2] > 0  # SGD on one number
    assert (progress.best_epoch, progress.best_loss, len(saved)) == (2, losses[2], 3)
    columns = set(progress.history[-1])
    if isinstance(objective, Decibels):
        assert progress.best_accuracy == progress.history[-1]["val_decibels"] < -100
        assert progress.history[-1]["val_decibels"] == pytest.approx(-100 - 4 * losses[2] / 14, abs=1e-5)
        assert {"train_absolute_error", "val_decibels", "val_pictures"} <= columns
    else:
        assert not [name for name in columns if "accuracy" in name or (name.startswith("val_") and name != "val_loss")]
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header.split(",") == list(progress.history[-1])
    assert [[key[1] for key in batch] for batch in fit.validation_batches] == [[0, 2], [1, 3]]

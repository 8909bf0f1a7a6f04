"""The training run of `superresolve`, and how its network compares with bicubic enlarging."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.cache import write_atomically
from vggtransfer.data.resampling import Picture
from vggtransfer.features.encoder_choice import load_encoder
from vggtransfer.perceptual.content import PerceptualLoss
from vggtransfer.perceptual.measures import Measure as PictureMeasure
from vggtransfer.perceptual.measures import build_measures
from vggtransfer.perceptual.picture_training import (
    MODEL_FILE,
    PictureJob,
    batch_mean_to_sum,
    check_training_options,
    train_on_pictures,
)
from vggtransfer.perceptual.pictures import as_picture, write_picture
from vggtransfer.perceptual.reduced_pictures import ReducedPictures
from vggtransfer.perceptual.super_network import SuperNetwork, enlarged, load_super_network, save_super_network
from vggtransfer.perceptual.superresolve import MAY_CHANGE, SuperresolveResult
from vggtransfer.perceptual.training_pictures import TrainingPictures
from vggtransfer.printable import printable
from vggtransfer.report.console import plain_table, print_table
from vggtransfer.training.contract import Measure, Progress
from vggtransfer.training.session import Session

PREVIEW = "preview.png"
SCORES = "scores.json"
_PREVIEWS = 4
_FREE = {*MAY_CHANGE, "out", "on_bad_image", "weights"}


class SuperTraining:
    """Pixels plus maps, as the training loop wants it; the squared error is told beside."""

    training_measure: Measure | None = Measure("squared_error", ".5f")

    def __init__(self, perceptual: PerceptualLoss | None, *, weight: float) -> None:
        self.perceptual, self.weight = perceptual, weight

    def training(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        large = targets.float() / 255
        made = model(images)
        loss = F.l1_loss(made, large)
        if self.perceptual is not None:
            loss = loss + self.weight * self.perceptual(made.clamp(0, 1), large)
        return loss, batch_mean_to_sum((made - large).square().mean(), images)

    def validation(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, _ = self.training(model, images, targets)
        return batch_mean_to_sum(loss, images), self.no_sums().to(images.device)

    def no_sums(self) -> Tensor:
        return torch.zeros(())

    def scores(self, sums: Tensor, pictures: int) -> dict[str, float]:  # noqa: ARG002
        return {}  # the loss tells which network is best


def train_super(recipe: Mapping[str, Any], *, resume: Path | None) -> SuperresolveResult:
    """Runs a complete recipe of `superresolve`."""
    check_training_options(recipe)
    perceptual, digest = None, "none"
    if recipe["perceptual_weight"]:
        names = [name.strip() for name in recipe["perceptual_layers"].split(",")]
        layers = {name: 1 / len(names) for name in names}
        perceptual = PerceptualLoss(layers, distance="l1", net=load_encoder(recipe["net"], recipe["weights"]))
        assert perceptual.trunk is not None
        digest = perceptual.trunk.digest
    validation: list[ReducedPictures] = []

    def build(pictures: TrainingPictures, _session: Session) -> PictureJob:
        factor = recipe["factor"]
        validation.append(ReducedPictures(pictures.validation, size=2 * recipe["crop"], factor=factor, seed=None))
        description = {name: recipe[name] for name in ("perceptual_weight", "perceptual_layers", "net", "crop")}
        return PictureJob(
            model=SuperNetwork(factor=factor, width=recipe["width"], blocks=recipe["blocks"]),
            objective=SuperTraining(perceptual, weight=recipe["perceptual_weight"]),
            train=ReducedPictures(pictures.train, size=recipe["crop"], factor=factor, seed=recipe["seed"]),
            validation=validation[0],
            save_model=partial(save_super_network, description=description),
            identity={"the weights of the loss": digest},
        )

    def conclude(run: Path, progress: Progress, device: torch.device) -> None:
        _compare(run, validation[0], device=device)
        print(
            f"best validation loss {progress.best_loss:.4f} in epoch {progress.best_epoch + 1}\n"
            f"wrote {printable(run)}/: {MODEL_FILE}, {SCORES}, {PREVIEW}, metrics.csv, recipe.yaml\nnext:\n"
            f"  vggtransfer superresolve-predict --model {printable(run)} PICTURES..."
        )

    run = train_on_pictures(
        "superresolve",
        recipe,
        recipe["data"],
        resume=resume,
        fixed=[name for name in recipe if name not in _FREE],
        may_be_files=("weights",),
        build=build,
        conclude=conclude,
    )
    scores = json.loads((run / SCORES).read_text(encoding="utf-8"))["scores"]
    return SuperresolveResult(run, run / MODEL_FILE, scores)


def _compare(run: Path, validation: ReducedPictures, *, device: torch.device) -> None:
    """Compares the best network with bicubic enlarging on the validation squares; writes and prints it."""
    model = load_super_network(run).to(device)
    measures = build_measures(
        ["psnr", "ssim", "lpips"],
        net="vgg16_bn_x0_25",
        weights="default",
        heads="none",
        dists_heads="none",
        compute_type=torch.float32,
        resize="none",
    )
    methods: dict[str, Callable[[Tensor], Tensor]] = {
        "bicubic": lambda small: enlarged(small, model.factor),
        "network": model,
    }
    values: dict[str, dict[str, list[float]]] = {name: {one.name: [] for one in measures} for name in methods}
    rows: list[Picture] = []
    with torch.inference_mode():
        for index in range(len(validation)):
            small, large, _ = validation[index]
            target = large[None].to(device).float() / 255
            made = {name: method(small[None].to(device).float() / 255).clamp(0, 1) for name, method in methods.items()}
            for name, picture in made.items():
                _measure(values[name], measures, picture, target)
            if len(rows) < _PREVIEWS:
                rows.append(np.concatenate([as_picture(picture) for picture in (*made.values(), target)], axis=1))
    scores = {
        name: {metric: sum(found) / len(found) for metric, found in by_metric.items()}
        for name, by_metric in values.items()
    }
    write_picture(run / PREVIEW, np.concatenate(rows))
    content = {"pictures": len(validation), "scores": scores, "stamps": [dict(one.stamp) for one in measures]}
    with write_atomically(run / SCORES) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    metrics = [one.name for one in measures]
    table = plain_table(f"{len(validation)} validation pictures", *metrics, numbers=tuple(metrics))
    for name, by_metric in scores.items():
        table.add_row(name, *(f"{by_metric[metric]:.4f}" for metric in metrics))
    print_table(table)


def _measure(values: dict[str, list[float]], measures: list[PictureMeasure], picture: Tensor, target: Tensor) -> None:
    # As the pictures are written: in 8 bits.
    rounded = picture.mul(255).round().div(255)
    for measure in measures:
        values[measure.name].append(measure(rounded, target).values.item())

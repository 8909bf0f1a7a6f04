"""`stylize --train`: a network learns to paint in one style."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vggtransfer.data.dataset import PictureDataset
from vggtransfer.data.decode import decode_image
from vggtransfer.data.resampling import centre_square
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.perceptual.picture_crops import RandomSquare
from vggtransfer.perceptual.picture_training import (
    MODEL_FILE,
    PictureJob,
    batch_mean_to_sum,
    check_training_options,
    train_on_pictures,
)
from vggtransfer.perceptual.pictures import as_picture, as_tensor, resized_style, write_picture
from vggtransfer.perceptual.style_network import StyleNetwork, save_style_network
from vggtransfer.perceptual.style_objective import StyleObjective
from vggtransfer.perceptual.style_painting import PREVIEW, style_objective
from vggtransfer.perceptual.stylize import MAY_CHANGE, StylizeResult
from vggtransfer.perceptual.training_pictures import TrainingPictures, fingerprint
from vggtransfer.printable import printable
from vggtransfer.training.contract import Measure, Progress
from vggtransfer.training.session import Session

_PREVIEWS = 4
_FREE = {*MAY_CHANGE, "out", "on_bad_image", "weights", "content", "model", "size"}


class StyleTraining:
    """The loss of Johnson et al. 2016, equation 5, as the training loop wants it."""

    training_measure: Measure | None = Measure("style_error", ".4f")

    def __init__(self, objective: StyleObjective) -> None:
        self.objective = objective

    def training(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        terms = self.objective.terms(model(images), self.objective.content_of(images))
        return terms.total, batch_mean_to_sum(terms.style, images)

    def validation(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, _ = self.training(model, images, targets)
        return batch_mean_to_sum(loss, images), self.no_sums().to(images.device)

    def no_sums(self) -> Tensor:
        return torch.zeros(())

    def scores(self, sums: Tensor, pictures: int) -> dict[str, float]:  # noqa: ARG002
        return {}  # the loss tells which network is best


def train_style(recipe: Mapping[str, Any], *, resume: Path | None) -> StylizeResult:
    """Runs a complete recipe of `stylize` with `train`."""
    check_training_options(recipe)
    style = decode_image(recipe["style"])

    def build(pictures: TrainingPictures, session: Session) -> PictureJob:
        objective = style_objective(recipe)
        example = resized_style(style, content_side=recipe["train_size"], style_scale=recipe["style_scale"])
        objective.check_size(example, option="style", path=recipe["style"])
        objective.set_style(as_tensor(example).to(session.device))
        size, seed = recipe["train_size"], recipe["seed"]
        previews = pictures.validation[:_PREVIEWS]
        description = {
            "style": recipe["style"].name,
            "net": recipe["net"],
            "weights_digest": objective.trunk.digest,
            "train_size": size,
        }

        def save(model: StyleNetwork, run: Path) -> None:
            save_style_network(model, run, description=description)
            squares = [centre_square(decode_image(sample.path), size) for sample in previews]
            device = next(model.parameters()).device
            with torch.inference_mode():
                painted = [as_picture(model(as_tensor(square).to(device))) for square in squares]
            rows = [np.concatenate(pair, axis=1) for pair in zip(squares, painted, strict=True)]
            write_picture(run / PREVIEW, np.concatenate(rows))

        return PictureJob(
            model=StyleNetwork(width=recipe["width"]),
            objective=StyleTraining(objective),
            train=PictureDataset(pictures.train, RandomSquare(size), seed=seed),
            validation=PictureDataset(pictures.validation, evaluation_transform(size, crop_fraction=1.0), seed=seed),
            save_model=save,
            identity={
                "the style picture": fingerprint(hashlib.sha256(style.tobytes()).hexdigest()),
                "the weights of the loss": objective.trunk.digest,
            },
        )

    run = train_on_pictures(
        "stylize",
        recipe,
        recipe["train"],
        resume=resume,
        fixed=[name for name in recipe if name not in _FREE],
        may_be_files=("weights",),
        build=build,
        conclude=_conclude,
    )
    return StylizeResult(run, (run / PREVIEW,), run / MODEL_FILE)


def _conclude(run: Path, progress: Progress, _device: torch.device) -> None:
    print(
        f"best validation loss {progress.best_loss:.4f} in epoch {progress.best_epoch + 1}\n"
        f"wrote {printable(run)}/: {MODEL_FILE}, {PREVIEW}, metrics.csv, recipe.yaml\nnext:\n"
        f"  vggtransfer stylize --model {printable(run)} --content PICTURES"
    )

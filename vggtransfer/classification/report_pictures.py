"""The pictures in a report: the most confident mistakes and the hardest classes, each with its heat map beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggtransfer.classification.class_maps import class_maps, class_maps_of_stage
from vggtransfer.classification.metrics import ClassScores, Scores
from vggtransfer.classification.model import VGGClassifier
from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import Sample
from vggtransfer.data.resampling import Picture, centre_square
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.encoder.precision import Precision
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import BadImageError
from vggtransfer.features.cached_stage import CachedStage
from vggtransfer.report.heat_maps import overlay
from vggtransfer.report.pictures import photograph_url

_SIDE = 160
_MOST_MISTAKES = 12
_MOST_CLASSES = 6
_MOST_OF_A_CLASS = 4
_BATCH = 8
_FEWEST_PLACES = 4


@dataclass(frozen=True)
class JudgedPicture:
    """A picture and the model's answer; `original` and `overlay` are data URLs, empty before they are drawn.

    `overlay` is None where there was no memory to compute it.
    """

    name: str
    index: int
    true: str
    true_probability: float
    predicted: str
    predicted_probability: float
    original: str = ""
    overlay: str | None = None
    side: int = _SIDE

    @property
    def right(self) -> bool:
        return self.true == self.predicted


@dataclass(frozen=True)
class HardClass:
    """A class and those of its pictures in which the model saw least of it."""

    scores: ClassScores
    pictures: tuple[JudgedPicture, ...]


@dataclass(frozen=True)
class JudgedPictures:
    """The pictures of a report, and the layer of their heat maps with its places along each side."""

    mistakes: tuple[JudgedPicture, ...]
    hardest: tuple[HardClass, ...]
    layer: str
    places: int


def judged_pictures(
    model: VGGClassifier,
    samples: Sequence[Sample],
    probabilities: Tensor,
    scores: Scores,
    *,
    root: Path,
    precision: Precision,
    stage: CachedStage | None = None,
) -> JudgedPictures:
    """Chooses and draws the pictures; one that cannot be read any more is left out.

    Args:
        model: On its device.
        samples: What was scored.
        probabilities: float [pictures, classes], in the order of the samples.
        scores: Of the same pictures.
        root: Folder that the file names are shown relative to.
        precision: See `vggtransfer.encoder.precision.resolve_precision`.
        stage: Where the maps of the same pictures are, behind the frozen part of the model; None computes from pixels.
    """
    labels = torch.tensor([sample.label for sample in samples])
    sure, predicted = probabilities.max(dim=1)
    of_true_class = probabilities.gather(1, labels[:, None])[:, 0]
    classes = model.task.classes

    def judged(index: int) -> JudgedPicture:
        return JudgedPicture(
            name=_shown_path(samples[index].path, root),
            index=index,
            true=classes[labels[index]],
            true_probability=of_true_class[index].item(),
            predicted=classes[predicted[index]],
            predicted_probability=sure[index].item(),
        )

    wrong = [
        index for index in sure.argsort(descending=True, stable=True).tolist() if labels[index] != predicted[index]
    ]
    mistakes = [judged(index) for index in wrong[:_MOST_MISTAKES]]
    with_mistakes = sorted((row.f1, label) for label, row in enumerate(scores.classes) if row.support and row.f1 < 1)
    hardest = []
    for _, label in with_mistakes[:_MOST_CLASSES]:
        least = [index for index in of_true_class.argsort(stable=True).tolist() if labels[index] == label]
        hardest.append((scores.classes[label], [judged(index) for index in least[:_MOST_OF_A_CLASS]]))

    layer, places = report_layer(model.encoder, model.task.image_size)
    every = {picture.index: picture for group in (mistakes, *(group for _, group in hardest)) for picture in group}
    paths = {index: samples[index].path for index in every}
    drawn = {
        index: dataclasses.replace(every[index], original=original, overlay=heat)
        for index, original, heat in _drawn(model, paths, predicted, layer=layer, precision=precision, stage=stage)
    }
    return JudgedPictures(
        mistakes=_only(mistakes, drawn),
        hardest=tuple(HardClass(row, _only(group, drawn)) for row, group in hardest),
        layer=layer,
        places=places,
    )


def report_layer(encoder: VGGEncoder, image_size: int) -> tuple[str, int]:
    """The deepest activation that still tells places apart, and how many along each side.

    That is the last one, unless the pictures are so small that less than 4 x 4 places of it are left.
    """
    layers = [layer for layer in reversed(encoder.architecture.layers) if layer.kind == "relu"]
    places = {layer.name: image_size // 2 ** (layer.block - 1) for layer in layers}
    name = next(layer.name for layer in layers if places[layer.name] >= _FEWEST_PLACES)
    return name, places[name]


def _shown_path(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _only(pictures: Sequence[JudgedPicture], drawn: dict[int, JudgedPicture]) -> tuple[JudgedPicture, ...]:
    return tuple(drawn[picture.index] for picture in pictures if picture.index in drawn)


def _drawn(
    model: VGGClassifier,
    paths: dict[int, Path],
    classes: Tensor,
    *,
    layer: str,
    precision: Precision,
    stage: CachedStage | None,
) -> Iterator[tuple[int, str, str | None]]:
    """Yields (index, URL of the picture as the network saw it, URL of the same with the heat map)."""
    task = model.task
    transform = evaluation_transform(task.image_size, crop_fraction=task.crop_fraction)
    least = max(transform.min_side or 0, round(_SIDE / task.crop_fraction))
    indices = list(paths)
    for start in range(0, len(indices), _BATCH):
        seen: dict[int, tuple[Picture, Picture]] = {}
        for index in indices[start : start + _BATCH]:
            try:
                picture = decode_image(paths[index], min_side=least)
            except BadImageError:  # it could be read before; it does not matter enough to spoil a report
                continue
            seen[index] = transform(picture, key=0), centre_square(picture, _SIDE, task.crop_fraction)
        if not seen:
            continue
        maps: NDArray[np.float32] | None = None
        # Beside the optimizer's state there is little room; the pictures alone do as well.
        with suppress(torch.OutOfMemoryError):
            asked = classes[list(seen)]
            if stage is not None and stage.leaves(layer, model):
                maps = class_maps_of_stage(model, stage, list(seen), asked, layer=layer, precision=precision)
            else:
                inputs = [image for image, _ in seen.values()]
                maps = class_maps(model, inputs, asked, layer=layer, precision=precision)
        for number, (index, (_, thumbnail)) in enumerate(seen.items()):
            heat = None if maps is None else photograph_url(overlay(thumbnail, maps[number]))
            yield index, photograph_url(np.ascontiguousarray(thumbnail)), heat

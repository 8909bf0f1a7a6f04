"""VGGClassifier: encoder and head, with everything needed to use it in one safetensors file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

import vggtransfer
from vggtransfer.classification.head import build_head, load_pretrained_layers
from vggtransfer.classification.head_names import HeadName
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES
from vggtransfer.encoder.checkpoint_files import read_checkpoint
from vggtransfer.encoder.trunk_files import FileHeader, check_digest, read_header, trunk_digest, write_weights
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.encoder.weights import load_weights
from vggtransfer.errors import WeightsError

MODEL_FILE = "model.safetensors"

_KIND = "classifier"


@dataclass(frozen=True)
class Task:
    """What a classifier was trained for.

    `image_size` and `crop_fraction` are those of `vggtransfer.data.transforms.evaluation_transform`.
    """

    classes: tuple[str, ...]
    image_size: int
    crop_fraction: float
    head: HeadName
    dropout: float


class VGGClassifier(nn.Module):
    """Scores pictures [batch, 3, height, width], RGB in [0, 1], as logits [batch, classes]."""

    def __init__(self, encoder: VGGEncoder, task: Task) -> None:
        super().__init__()
        self.encoder = encoder
        self.task = task
        self.head = build_head(
            task.head, in_channels=encoder.out_channels[-1], classes=len(task.classes), dropout=task.dropout
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(images)[-1])
        return logits

    def layers(self) -> list[tuple[str, nn.Module]]:
        """Returns all layers by name, in order; applied one by one to a normalised picture they are the model."""
        return [*self.encoder.trunk.items(), *((f"head.{name}", layer) for name, layer in self.head.named_children())]


def build_classifier(
    arch: str, task: Task, *, weights: str, state: Mapping[str, Any] | None
) -> tuple[VGGClassifier, tuple[str, ...]]:
    """Returns a classifier to be trained, and the layers of its head that are pretrained.

    Args:
        arch: Architecture of the encoder.
        task: What it is to be trained for.
        weights: Where the starting weights come from.
        state: A checkpoint that will fill it, so that no weights are needed.
    """
    source = "none" if state is not None else weights
    if task.head != "vgg" or source == "none":
        model = VGGClassifier(VGGEncoder(arch, weights=source, layers=["pool5"]), task)
        return model, () if state is None else tuple(state["pretrained_layers"])
    # Before the encoder, so that a download serves both.
    classifier = load_weights(arch, source, classifier="if present").classifier
    model = VGGClassifier(VGGEncoder(arch, weights=source, layers=["pool5"]), task)
    return model, load_pretrained_layers(model.head, classifier)


def save_classifier(model: VGGClassifier, path: Path) -> None:
    """Writes weights, architecture, classes and preprocessing to one safetensors file, atomically.

    Raises:
        WeightsError: The folder cannot be written or the disk is full.
    """
    encoder = model.encoder
    tensors = model.state_dict()
    header = FileHeader(
        kind=_KIND,
        architecture=encoder.architecture.name,
        mean=tuple(encoder.mean.flatten().tolist()),
        std=tuple(encoder.std.flatten().tolist()),
        origin=encoder.origin,
        digest=trunk_digest(tensors),
        more={
            "task": asdict(model.task),
            "versions": {"vggtransfer": vggtransfer.__version__, "torch": torch.__version__},
        },
    )
    remedy = f"free space and go on with: vggtransfer finetune --resume {shlex.quote(str(path.parent))}"
    write_weights(path, tensors, header, remedy=remedy)


def load_classifier(source: str | Path) -> VGGClassifier:
    """Loads a fine-tuned classifier, in evaluation mode, on the CPU.

    Args:
        source: A run directory of `finetune`, or its `model.safetensors`.

    Raises:
        WeightsError: No such file, or a file that is not such a classifier.
    """
    source = Path(source).expanduser()
    path = source / MODEL_FILE if source.is_dir() else source
    if not path.is_file():
        raise WeightsError(f"--model {source}: no {MODEL_FILE} there; give a run directory such as runs/finetune/1")
    file = read_checkpoint(path)
    header = read_header(file)
    if header is None or header.kind != _KIND:
        hint = "; of the networks of `compare`, only VGG can be used" if header and header.kind == "network" else ""
        raise WeightsError(f"{path}: this is not a classifier trained by `vggtransfer finetune`{hint}")
    task = _task(path, header)
    encoder = VGGEncoder(header.architecture, weights=None, layers=["pool5"], unfreeze="none")
    model = VGGClassifier(encoder, task)
    try:
        model.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: its tensors do not fit the {encoder.architecture.name} it describes") from error
    encoder.origin, encoder.digest = header.origin, check_digest(file, header, trunk_digest(file.tensors))
    return model.eval()


def _task(path: Path, header: FileHeader) -> Task:
    try:
        entry = header.more["task"]
        task = Task(**{**entry, "classes": tuple(entry["classes"])})
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path} has a damaged header ({error!r}); save or copy it again") from error
    for name, value, known in (
        ("architecture", header.architecture, ARCHITECTURE_NAMES),
        ("head", task.head, get_args(HeadName)),
    ):
        if value not in known:
            raise WeightsError(f"{path} has the {name} '{value}', which this version does not know; update vggtransfer")
    return task

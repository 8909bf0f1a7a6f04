"""VGGClassifier: encoder and head, with everything needed to use it in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import vggtransfer
from vggtransfer.cache import write_atomically
from vggtransfer.classification.head import build_head
from vggtransfer.classification.head_names import HeadName
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import WeightsError

MODEL_FILE = "model.safetensors"


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


def save_classifier(model: VGGClassifier, path: Path) -> None:
    """Writes weights, architecture, classes and preprocessing to one safetensors file, atomically."""
    encoder = model.encoder
    description = {
        "format": 1,
        "kind": "classifier",
        "architecture": encoder.architecture.name,
        "task": asdict(model.task),
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
        "origin": encoder.origin,
        "digest": encoder.digest,
        "versions": {"vggtransfer": vggtransfer.__version__, "torch": torch.__version__},
    }
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    with write_atomically(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={"vggtransfer": json.dumps(description)})


def load_classifier(source: Path) -> VGGClassifier:
    """Loads a fine-tuned classifier, in evaluation mode, on the CPU.

    Args:
        source: A run directory of `finetune`, or its `model.safetensors`.

    Raises:
        WeightsError: No such file, or a file that is not such a classifier.
    """
    path = source / MODEL_FILE if source.is_dir() else source
    if not path.is_file():
        raise WeightsError(f"--model {source}: no {MODEL_FILE} there; give a run directory such as runs/finetune/1")
    description, tensors = _read(path)
    task = Task(**{**description["task"], "classes": tuple(description["task"]["classes"])})
    encoder = VGGEncoder(description["architecture"], weights=None, layers=["pool5"], unfreeze="none")
    encoder.origin, encoder.digest = description["origin"], description["digest"]
    model = VGGClassifier(encoder, task)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: its tensors do not fit the {encoder.architecture.name} it describes") from error
    return model.eval()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get("vggtransfer", "{}"))
            if description.get("kind") != "classifier":
                raise WeightsError(f"{path}: this is not a classifier trained by `vggtransfer finetune`")
            return description, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iterator)
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise WeightsError(f"{path}: damaged or not a safetensors file ({error})") from error

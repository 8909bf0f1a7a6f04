"""What all networks of a comparison have in common, as the title of its tables and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vggtransfer.classification.fit_options import train_sizes
from vggtransfer.comparison.options import finetune_recipe, image_size, network_names
from vggtransfer.comparison.pictures import ComparedPictures
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES
from vggtransfer.encoder.precision import resolve_precision
from vggtransfer.printable import printable


@dataclass(frozen=True)
class Setting:
    """What all networks of a comparison have in common.

    Attributes:
        title: It in one line.
        classes: Number of classes.
        image_size: Side of the pictures that were asked for.
        train_sizes: Sides of the training pictures that were asked for, each with the epoch (from 0) from which on it
            holds; None if they are to be those of the test.
        head: Of VGG networks.
        notes: What readers of the table must know.
    """

    title: str
    classes: int
    image_size: int
    train_sizes: tuple[tuple[int, int], ...] | None
    head: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Mapping[str, Any], pictures: ComparedPictures, device: torch.device) -> Setting:
        """Sums up the options, the pictures and the machine."""
        source = {"test": "`test/`", "val": "`val/`", "set aside": "a fifth of the pictures, set aside"}
        return cls(
            title=(
                f"{printable(pictures.pictures.root.resolve().name)}, {pictures.counts}; {_options(recipe)}; "
                f"{_machine(recipe, device)}"
            ),
            classes=len(pictures.pictures.classes),
            image_size=image_size(recipe),
            train_sizes=None if recipe["train_size"] is None else train_sizes(finetune_recipe(recipe)),
            head=recipe["head"],
            notes=(
                f"Test: {source[pictures.split]}, after the last epoch; no epoch was chosen by it. Train: the running "
                "accuracy over the last epoch's augmented pictures.",
            ),
        )


def _options(recipe: Mapping[str, Any]) -> str:
    scratch = recipe["weights"] == "none"
    words = [
        _count(recipe["epochs"], "epoch"),
        f"from scratch (initialisation {recipe['initialisation']})" if scratch else "fine-tuned",
    ]
    if any(name in ARCHITECTURE_NAMES for name in network_names(recipe["archs"])):
        words.append(f"VGG with head {recipe['head']}")
    words += [
        recipe["optimizer"],
        f"batches of {recipe['batch_size']}",
        f"weight decay {recipe['weight_decay']:g}",
        f"label smoothing {recipe['label_smoothing']:g}",
        f"augmentation {printable(Path(recipe['augmentation']).name)}",
    ]
    if recipe["train_size"] is not None:
        words.append(f"train size {recipe['train_size']}")
    return ", ".join([*words, f"seed {recipe['seed']}"])


def _machine(recipe: Mapping[str, Any], device: torch.device) -> str:
    threads = _count(torch.get_num_threads(), "CPU thread")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else threads
    return f"{name}, {str(resolve_precision(recipe['precision'], device)).removeprefix('torch.')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

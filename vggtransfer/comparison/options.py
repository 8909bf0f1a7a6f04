"""The options of `compare`: checked before anything expensive, and resolved for each network by one rule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vggtransfer.classification.fit_options import check_recipe, train_sizes
from vggtransfer.classification.recipe import finetune
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES
from vggtransfer.encoder.inspection import NETWORK_NAMES
from vggtransfer.errors import OptionError, did_you_mean

# `data` may have moved; its pictures are compared one by one. `archs` may only grow.
MAY_CHANGE = ("data", "archs", "workers")

# The table needs no more than the epochs; options of `finetune` that are not offered keep one value for all networks.
_ALIKE = {"unfreeze": "all", "mixup": 0.0, "cutmix": 0.0, "sampling": "shuffle", "class_weights": "none"}


@dataclass(frozen=True)
class Plan:
    """How one network is trained, where that depends on the network.

    Attributes:
        arch: Its name.
        learning_rate: Peak rate of the head, and without pretrained weights of everything.
        backbone_learning_rate: Peak rate of the rest.
        warmup_epochs: Epochs of linear warm-up.
        gradient_clip: Largest norm of the gradient; None for no clipping.
        image_size: Side of the pictures in pixels.
        train_sizes: Sides of the training pictures, each with the epoch (from 0) from which on it holds.
    """

    arch: str
    learning_rate: float
    backbone_learning_rate: float
    warmup_epochs: float
    gradient_clip: float | None
    image_size: int
    train_sizes: tuple[tuple[int, int], ...]


def network_names(archs: str) -> tuple[str, ...]:
    """Takes the comma list of networks apart.

    Raises:
        OptionError: It is empty, names a network twice, or one that does not exist.
    """
    names = tuple(name.strip() for name in archs.split(",") if name.strip())
    if not names:
        raise OptionError(f"--archs '{archs}' names no network; for example alexnet,vgg16_bn")
    for position, name in enumerate(names):
        if name not in NETWORK_NAMES:
            known = ", ".join(NETWORK_NAMES)
            raise OptionError(f"--archs: unknown network '{name}'{did_you_mean(name, NETWORK_NAMES)}; known: {known}")
        if name in names[:position]:
            raise OptionError(f"--archs: {name} is named twice; leave one out")
    return names


def check_options(recipe: Mapping[str, Any]) -> None:
    """Finds the mistakes that can be found without reading pictures or loading weights.

    Raises:
        OptionError: An option has a value that cannot be used.
        DataError: The data folder does not exist.
        WeightsError: A network has no pretrained weights.
    """
    names = network_names(recipe["archs"])
    check_recipe(finetune_recipe(recipe))
    if recipe["batch_size"] < 2:
        raise OptionError("--batch-size 1 is not possible: BatchNorm needs two pictures or more")
    limit = recipe["train_limit"]
    if limit is not None and limit < 2:
        raise OptionError(f"--train-limit {limit} is not possible: use at least one picture of each class")
    if recipe["weights"] == "none":
        return
    if recipe["initialisation"] != "he":
        raise OptionError(f"--initialisation {recipe['initialisation']} is for training from scratch: --weights none")
    for name in names:
        if name in ARCHITECTURE_NAMES:
            from vggtransfer.encoder.weight_sources import find_source

            find_source(name, "default")
        else:
            from vggtransfer.encoder.whole_network import pretrained_source

            pretrained_source(name)


def finetune_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The same options under the names and with the meanings that they have in `finetune`."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(finetune).parameters.items()}
    shared = {name: value for name, value in recipe.items() if name in defaults}
    rate = 0.1 if recipe["lr"] is None else recipe["lr"]
    warmup = 0.0 if recipe["warmup_epochs"] is None else recipe["warmup_epochs"]
    return {
        **defaults,
        **shared,
        **_ALIKE,
        "image_size": image_size(recipe),
        "lr": rate,
        "warmup_epochs": warmup,
        "gradient_clip": recipe["gradient_clip"] or None,
    }


def image_size(recipe: Mapping[str, Any]) -> int:
    """The side of the pictures of all networks that can take it."""
    if recipe["image_size"] is not None:
        return int(recipe["image_size"])
    return 32 if recipe["weights"] == "none" else 224


def plan_for(arch: str, recipe: Mapping[str, Any], *, batch_norm: bool, minimum: int) -> Plan:
    """Chooses what depends on the network; an option that was given holds for all of them.

    From scratch, networks without BatchNorm get a fifth of the rate with SGD and a tenth with the others, twice the
    warm-up, and gradients clipped to a norm of 1. BatchNorm makes the gradient of a layer inversely proportional to the
    scale of its weights, which forgives a high rate (Ioffe & Szegedy 2015, section 3.3); without it one large step in
    the first epoch, while all gradients still point the same way, can switch a deep network's ReLUs off for good. The
    rates are meant for batches of 64 to 512 pictures. Pretrained networks get a tenth of the head's rate in what is
    pretrained, and no clipping, BatchNorm or not.

    Args:
        arch: The network.
        recipe: Options of `compare`.
        batch_norm: Whether it has BatchNorm.
        minimum: Side in pixels of the smallest pictures it takes.
    """
    scratch, sgd = recipe["weights"] == "none", recipe["optimizer"] == "sgd"
    forgiving = batch_norm or not scratch
    if scratch:
        rate = (0.1 if sgd else 2e-3) if batch_norm else (0.02 if sgd else 2e-4)
    else:
        rate = 0.01 if sgd else 1e-3
    rate = rate if recipe["lr"] is None else recipe["lr"]
    # A tenth of the run for the forgiving, as usual in one-cycle schedules (Smith & Topin 2018).
    warmup = min(recipe["epochs"] / (10 if forgiving else 5), 2.0 if forgiving else 4.0)
    clip = (None if forgiving else 1.0) if recipe["gradient_clip"] is None else recipe["gradient_clip"] or None
    wanted = image_size(recipe)
    size = _picture_size(arch, wanted, minimum)
    schedule = train_sizes(finetune_recipe(recipe))
    scheduled = size == wanted and arch != "lenet5"  # which takes a single size
    own = tuple((start, max(side, minimum)) for start, side in schedule) if scheduled else ((0, size),)
    return Plan(
        arch=arch,
        learning_rate=rate,
        backbone_learning_rate=rate if scratch else rate / 10,
        warmup_epochs=warmup if recipe["warmup_epochs"] is None else recipe["warmup_epochs"],
        gradient_clip=clip,
        image_size=size,
        train_sizes=own,
    )


def _picture_size(arch: str, wanted: int, minimum: int) -> int:
    """What is wanted where the network takes it, else the next multiple of 32 from its minimum on."""
    if arch == "lenet5":
        return 32
    return wanted if wanted >= minimum else -(-minimum // 32) * 32

"""The options of `finetune`, checked before anything expensive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vggtransfer.data.augmentation_lists import FIXED_VIEWS
from vggtransfer.encoder.architectures import architecture
from vggtransfer.encoder.freezing import parse_unfreeze
from vggtransfer.errors import DataError, OptionError
from vggtransfer.training.fit_options import TRAINING_RANGES, check_ranges, check_tensorboard
from vggtransfer.training.schedule import parse_stages, parse_unfreeze_schedule

_MARGIN = 0.3
_RANGES: dict[str, tuple[float, float]] = {
    "dropout": (0, 0.999),
    "margin": (0, 1.5),
    "image_size": (32, 4096),
    "label_smoothing": (0, 0.999),
    "mixup": (0, 1e6),
    "cutmix": (0, 1e6),
    "views": (2, 10**4),
    "cache_size": (0, 1e9),
    "val_fraction": (0.001, 0.9),
}


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Finds the mistakes that can be found without reading pictures, loading weights or importing torch.

    Raises:
        OptionError: An option has a value that cannot be used.
        DataError: The data folder does not exist.
    """
    check_ranges(recipe, {**TRAINING_RANGES, **_RANGES})
    for stage in parse_unfreeze_schedule(recipe["unfreeze"]):
        parse_unfreeze(stage.value, architecture(recipe["arch"]))
    train_sizes(recipe)
    if recipe["head"] == "arcface" and (recipe["mixup"] or recipe["cutmix"]):
        raise OptionError("--head arcface trains each picture towards one class; leave out --mixup and --cutmix")
    if recipe["head"] != "arcface" and recipe["margin"] is not None:
        raise OptionError(f"--margin {recipe['margin']} is for --head arcface, not {recipe['head']}; leave it out")
    if recipe["cache"] in ("memory", "disk") and (reason := why_not_cached(recipe)):
        raise OptionError(f"--cache {recipe['cache']} is not possible: {reason}")
    if recipe["data"] is None:
        raise OptionError("missing --data: the folder with the pictures, one sub-folder per class")
    if not recipe["data"].is_dir():
        raise DataError(f"--data {recipe['data']}: there is no such folder")
    check_tensorboard(recipe["tensorboard"])


def chosen_augmentation(recipe: Mapping[str, Any]) -> str:
    """The preset or file that a recipe means: `auto` is `mirror` where frozen layers make up most of the work.

    With block5 training, pictures and their mirror images have measured as well as pictures alone, and better than any
    zooming preset (tests/benchmarks/cached_views.py): zoomed crops show objects at another size than the test does
    (Touvron et al. 2019). And what the frozen layers answer to two views is computed once. Elsewhere, and with `views`,
    mixup or cutmix, it is `standard`.

    Raises:
        OptionError: A freezing policy that cannot be read.
    """
    if recipe["augmentation"] != "auto":
        return str(recipe["augmentation"])
    layers = architecture(recipe["arch"])
    stages = parse_unfreeze_schedule(recipe["unfreeze"])
    trained = {layers.layer(name).block for stage in stages for name in parse_unfreeze(stage.value, layers)}
    fixed = recipe["views"] is None and recipe["weights"] != "none" and min(trained, default=6) >= 4
    return "mirror" if fixed and not recipe["mixup"] and not recipe["cutmix"] else "standard"


def chosen_margin(recipe: Mapping[str, Any]) -> float:
    """The angle that a recipe means, in radians; 0 for heads that know none."""
    if recipe["head"] != "arcface":
        return 0.0
    return _MARGIN if recipe["margin"] is None else float(recipe["margin"])


def why_not_cached(recipe: Mapping[str, Any]) -> str:
    """Why what frozen layers answer cannot be computed once for all epochs; empty if it can."""
    if recipe["mixup"] or recipe["cutmix"]:
        return "mixup and cutmix make new pictures in every step"
    if recipe["augmentation"] not in FIXED_VIEWS and recipe["views"] is None:
        name = recipe["augmentation"]
        return (
            f"{name} makes new pictures in every epoch; --augmentation mirror or crops, or --views 8 for as many of "
            f"{name} for each picture, can be computed once"
        )
    return ""


def train_sizes(recipe: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The sides of the training pictures in pixels, each with the epoch (from 0) from which on it holds.

    Raises:
        OptionError: A schedule that cannot be read, or a side that cannot be used.
    """
    if recipe["train_size"] is None:
        return ((0, recipe["image_size"]),)
    text = str(recipe["train_size"])
    low, high = _RANGES["image_size"]
    stages = parse_stages("train_size", text, kind="PIXELS", example="32 48@10 64@20")
    for stage in stages:
        if not stage.value.isdecimal() or not low <= int(stage.value) <= high:
            raise OptionError(f"train_size='{text}': {stage.value} is not a side in pixels from {low:,} to {high:,}")
    return tuple((stage.start, int(stage.value)) for stage in stages)

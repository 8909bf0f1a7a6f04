"""The options of `segment`: checked before anything expensive; those that nobody would heed are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vggtransfer.data.seen_size import parse_seen_size
from vggtransfer.encoder.architectures import architecture
from vggtransfer.encoder.freezing import parse_unfreeze
from vggtransfer.errors import DataError, OptionError
from vggtransfer.training.fit_options import TRAINING_RANGES, check_ranges, check_tensorboard
from vggtransfer.training.schedule import parse_unfreeze_schedule

if TYPE_CHECKING:
    from vggtransfer.segmentation.model import DecoderOptions

MAY_CHANGE = (
    "data",
    "epochs",
    "lr",
    "backbone_lr",
    "gradient_clip",
    "precision",
    "patience",
    "workers",
    "checkpoint_minutes",
    "tensorboard",
)
"""Options that a resumed run may be given anew. `data` may have moved; its pictures are compared one by one."""

_FREE = (*MAY_CHANGE, "out", "on_bad_image", "device", "channels_last", "compile", "weights", "augmentation", "classes")

_RANGES: Mapping[str, tuple[float, float]] = {
    "dropout": (0, 0.999),
    "hidden_channels": (1, 2**16),
    "label_smoothing": (0, 0.999),
    "val_fraction": (0.001, 0.9),
}
_STRIDE = 32
_OF_UNETS = ("decoder_channels", "full_resolution_skip", "normalization")
_OF_OTHERS = ("hidden_channels", "dropout")


def check_recipe(recipe: Mapping[str, Any], command: Callable[..., object]) -> None:
    """Finds the mistakes that can be found without reading pictures, loading weights or importing torch.

    Args:
        recipe: Every option of the command.
        command: The command, for its defaults.

    Raises:
        OptionError: An option has a value that cannot be used, or one that nothing would come of.
        DataError: The data folder does not exist.
    """
    check_ranges(recipe, {**TRAINING_RANGES, **_RANGES})
    for stage in parse_unfreeze_schedule(recipe["unfreeze"]):
        parse_unfreeze(stage.value, architecture(recipe["arch"]))
    parse_channels(recipe["decoder_channels"])
    crop_size(recipe)
    _refuse_unheeded(recipe, command)
    if recipe["data"] is None:
        raise OptionError("missing --data: the folder with the pictures and their masks")
    if not recipe["data"].is_dir():
        raise DataError(f"--data {recipe['data']}: there is no such folder")
    check_tensorboard(recipe["tensorboard"])


def fixed_options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint must have in common with the recipe that resumes it; the rest changes no weight, or may."""
    return {name: value for name, value in recipe.items() if name not in _FREE}


def crop_size(recipe: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the training crops: as asked for; else all of an exact `image_size`, or its square.

    Raises:
        OptionError: A size that cannot be read, or none at all.
    """
    seen = parse_seen_size("image-size", recipe["image_size"])
    if recipe["crop_size"] is not None:
        crop = parse_seen_size("crop-size", recipe["crop_size"])
        if crop.exact is not None:
            return crop.exact
        if crop.short_side is not None:
            return crop.short_side, crop.short_side
    if seen.exact is not None:
        return seen.exact
    if seen.short_side is None:
        raise OptionError("--image-size none keeps pictures as they are; give the size of training crops, --crop-size")
    return seen.short_side, seen.short_side


def check_batch_norm(recipe: Mapping[str, Any], *, pictures: int, processes: int) -> None:
    """Refuses crops so small that a U-Net's BatchNorm would normalise one value, at the coarsest level, by itself.

    Args:
        recipe: Every option of the command.
        pictures: For training.
        processes: That train.

    Raises:
        OptionError: There is one value a channel and process.
    """
    from vggtransfer.training.sampling import batch_geometry

    at_once, _ = batch_geometry(
        pictures, batch_size=recipe["batch_size"], accumulate=recipe["accumulate"], processes=processes
    )
    height, width = crop_size(recipe)
    normalised = recipe["decoder"] == "unet" and recipe["normalization"] == "batch"
    if normalised and at_once == 1 and max(height, width) <= _STRIDE:
        raise OptionError(
            f"one training crop of {width} x {height} at a time leaves BatchNorm a single value; use larger ones, a "
            "larger --batch-size (of more pictures), or --normalization none"
        )


def parse_channels(text: str | None) -> tuple[int, ...] | None:
    """Reads `256,128,64,32,16`.

    Raises:
        OptionError: Anything that is not five numbers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 5 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise OptionError(f"--decoder-channels {text} is not possible: use five numbers such as 256,128,64,32,16")
    return tuple(map(int, parts))


def decoder_options(recipe: Mapping[str, Any]) -> DecoderOptions:
    """What of a recipe says how the network is built."""
    from vggtransfer.segmentation.model import DecoderOptions

    return DecoderOptions(
        name=recipe["decoder"],
        decoder_channels=parse_channels(recipe["decoder_channels"]),
        full_resolution_skip=recipe["full_resolution_skip"],
        normalization=recipe["normalization"],
        hidden_channels=recipe["hidden_channels"],
        dropout=0.5 if recipe["dropout"] is None else recipe["dropout"],
    )


def _refuse_unheeded(recipe: Mapping[str, Any], command: Callable[..., object]) -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    decoder, loss = recipe["decoder"], recipe["loss"].split("+")
    reasons = dict.fromkeys(_OF_OTHERS if decoder == "unet" else _OF_UNETS, f"--decoder {decoder} has none")
    if "ce" not in loss:
        reasons["label_smoothing"] = f"--loss {recipe['loss']} has no cross-entropy"
    if not {"ce", "focal"} & set(loss):
        reasons["class_weights"] = f"--loss {recipe['loss']} weighs all classes alike already"
    for name, reason in reasons.items():
        if recipe[name] != defaults[name]:
            raise OptionError(f"--{name.replace('_', '-')} {recipe[name]} would change nothing: {reason}; leave it out")

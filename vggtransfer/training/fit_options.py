"""The options that every training command has: checked before anything expensive, resolved for the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vggtransfer.errors import OptionError
from vggtransfer.training.schedule import parse_unfreeze_schedule

if TYPE_CHECKING:
    from vggtransfer.training.contract import FitOptions
    from vggtransfer.training.session import Session

TRAINING_RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 10**6),
    "batch_size": (1, 10**6),
    "accumulate": (1, 10**6),
    "lr": (0, 1e6),
    "backbone_lr": (0, 1e6),
    "layer_decay": (0, 1),
    "weight_decay": (0, 1e6),
    "momentum": (0, 0.9999),
    "warmup_epochs": (0, 10**6),
    "gradient_clip": (1e-12, 1e12),
    "ema": (0, 0.999999),
    "patience": (1, 10**6),
    "workers": (0, 1024),
    "checkpoint_minutes": (0, 1e6),
    "seed": (0, 2**63 - 1),
}
"""Lowest and highest values of these options."""


def check_ranges(recipe: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuses numbers out of range; None passes.

    Raises:
        OptionError: One is.
    """
    for name, (low, high) in ranges.items():
        value = recipe[name]
        if value is not None and not low <= value <= high:
            raise OptionError(f"--{name.replace('_', '-')} {value} is not possible: use {low:,} to {high:,}")


def check_tensorboard(wanted: bool) -> None:
    """Refuses to want TensorBoard where it is not installed.

    Raises:
        OptionError: It is not.
    """
    from importlib.util import find_spec

    if wanted and find_spec("tensorboard") is None:
        raise OptionError("--tensorboard needs TensorBoard: pip install 'vggtransfer[tensorboard]'")


def fit_options(recipe: Mapping[str, Any], session: Session) -> FitOptions:
    """Resolves what depends on other options or on the machine."""
    from vggtransfer.data.loader import resolve_workers
    from vggtransfer.encoder.precision import prefers_channels_last, resolve_precision
    from vggtransfer.training.contract import FitOptions

    rate = recipe["lr"]
    # Random features have everything to learn, pretrained ones much to lose.
    backbone_rate = rate if recipe["weights"] == "none" else rate / 10
    return FitOptions(
        epochs=recipe["epochs"],
        stages=parse_unfreeze_schedule(recipe["unfreeze"]),
        batch_size=recipe["batch_size"],
        accumulate=recipe["accumulate"],
        optimizer=recipe["optimizer"],
        learning_rate=rate,
        backbone_learning_rate=backbone_rate if recipe["backbone_lr"] is None else recipe["backbone_lr"],
        layer_decay=recipe["layer_decay"],
        weight_decay=recipe["weight_decay"],
        momentum=recipe["momentum"],
        warmup_epochs=recipe["warmup_epochs"],
        gradient_clip=recipe["gradient_clip"],
        ema=recipe["ema"],
        patience=recipe["patience"],
        precision=resolve_precision(recipe["precision"], session.device),
        channels_last=recipe["channels_last"] and prefers_channels_last(session.device),
        compile=recipe["compile"],
        workers=resolve_workers(recipe["workers"], device=session.device, processes=session.processes),
        seed=recipe["seed"],
        checkpoint_minutes=recipe["checkpoint_minutes"],
    )

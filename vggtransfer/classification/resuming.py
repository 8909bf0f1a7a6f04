"""`finetune --resume`: a run goes on with its own recipe, and with the few options that may change on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggtransfer.training.resuming import resumed_recipe

if TYPE_CHECKING:
    from vggtransfer.classification.recipe import FinetuneResult

# `data` may have moved; its pictures are compared one by one.
MAY_CHANGE = (
    "data",
    "epochs",
    "lr",
    "backbone_lr",
    "gradient_clip",
    "precision",
    "patience",
    "workers",
    "cache",
    "cache_size",
    "checkpoint_minutes",
    "tensorboard",
)


def resume_finetune(run: Path, changes: Mapping[str, Any]) -> FinetuneResult:
    """Continues a run.

    Args:
        run: Its directory.
        changes: Options given anew, by name; they must be among `MAY_CHANGE` or equal what the recipe says.
    """
    from vggtransfer.classification.recipe import finetune, run_recipe

    return run_recipe(resumed_recipe(finetune, run, changes, may_change=MAY_CHANGE), resume=run)


def fixed_options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint must have in common with the recipe that resumes it; the rest changes no weight, or may."""
    free = {*MAY_CHANGE, "out", "on_bad_image", "device", "channels_last", "compile", "weights", "augmentation"}
    return {name: value for name, value in recipe.items() if name not in free}

"""`finetune --resume`: a run goes on with its own recipe, and with the few options that may change on the way."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.recipe_files import read_recipe

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
    "checkpoint_minutes",
    "tensorboard",
)


def resume_finetune(run: Path, changes: Mapping[str, Any]) -> FinetuneResult:
    """Continues a run.

    Args:
        run: Its directory.
        changes: Options given anew, by name; they must be among `MAY_CHANGE` or equal what the recipe says.
    """
    from vggtransfer.classification.recipe import run_recipe

    return run_recipe(resumed_recipe(run, changes), resume=run)


def resumed_recipe(run: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a run with its changes applied.

    Raises:
        OptionError: No recipe there, one that cannot be read, or a change that a run does not survive.
    """
    from vggtransfer.classification.recipe import finetune

    path = run / "recipe.yaml"
    if not path.is_file():
        raise OptionError(f"--resume {run}: no recipe.yaml there; give a run directory such as runs/finetune/1")
    defaults = {name: parameter.default for name, parameter in inspect.signature(finetune).parameters.items()}
    recipe = {**defaults, **checked_values(finetune, read_recipe(path), place=f"{path}: ")}
    del recipe["resume"]
    for name, value in checked_values(finetune, changes).items():
        if value == recipe[name]:
            continue
        if name not in MAY_CHANGE:
            raise OptionError(
                f"--resume {run}: --{name.replace('_', '-')} cannot be changed in a run that goes on; "
                f"only {', '.join(MAY_CHANGE)} can. Leave it out or start a new run"
            )
        recipe[name] = value
    return recipe


def fixed_options(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint must have in common with the recipe that resumes it; the rest changes no weight, or may."""
    free = {*MAY_CHANGE, "out", "on_bad_image", "device", "channels_last", "compile", "weights", "augmentation"}
    return {name: value for name, value in recipe.items() if name not in free}

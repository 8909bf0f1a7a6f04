"""`--resume`: a run goes on with its own recipe, and with the few options that may change on the way."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.recipe_files import read_recipe


def resumed_recipe(
    command: Callable[..., object], run: Path, changes: Mapping[str, Any], *, may_change: Sequence[str]
) -> dict[str, Any]:
    """The recipe of a run with its changes applied.

    Args:
        command: The function whose run it is.
        run: Its directory.
        changes: Options given anew, by name.
        may_change: Those that may differ from what the recipe says.

    Raises:
        OptionError: No recipe there, one that cannot be read, or a change that a run does not survive.
    """
    path = run / "recipe.yaml"
    if not path.is_file():
        example = f"runs/{command.__name__}/1"
        raise OptionError(f"--resume {run}: no recipe.yaml there; give a run directory such as {example}")
    written_by = re.match(r"# All options of `vggtransfer (.+?)`", path.read_text(encoding="utf-8"))
    if written_by and written_by[1] != command.__name__:
        raise OptionError(
            f"--resume {run}: is a run of `{written_by[1]}`; use vggtransfer {written_by[1]} --resume {run}"
        )
    defaults = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    recipe = {**defaults, **checked_values(command, read_recipe(path), place=f"{path}: ")}
    del recipe["resume"]
    for name, value in checked_values(command, changes).items():
        if value == recipe[name]:
            continue
        if name not in may_change:
            raise OptionError(
                f"--resume {run}: --{name.replace('_', '-')} cannot be changed in a run that goes on; "
                f"only {', '.join(may_change)} can. Leave it out or start a new run"
            )
        recipe[name] = value
    return recipe

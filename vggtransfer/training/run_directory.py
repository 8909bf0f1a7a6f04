"""The folder that holds all there is to know about one run."""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import vggtransfer
from vggtransfer.cache import write_atomically
from vggtransfer.errors import OptionError
from vggtransfer.recipe_files import resolved_recipe
from vggtransfer.training.run_paths import check_out

ENVIRONMENT_FILE = "environment.json"
_PACKAGES = (
    "vggtransfer",
    "torch",
    "torchvision",
    "timm",
    "albumentations",
    "accelerate",
    "numpy",
    "pillow",
)


def create_run_directory(command: str, out: Path | None) -> Path:
    """Creates `runs/COMMAND/N` with the next free number, or `out`.

    Raises:
        OptionError: `out` exists and is not empty, or the folder cannot be written.
    """
    parent = Path("runs") / command if out is None else out
    check_out(out)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return _numbered(parent) if out is None else out
    except OSError as error:
        raise OptionError(
            f"cannot create the run directory {parent}: {error.strerror}; choose another --out"
        ) from error


def _numbered(parent: Path) -> Path:
    number = max((int(path.name) for path in parent.iterdir() if path.name.isdecimal()), default=0)
    while True:
        number += 1
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:  # another run took it a moment ago
            continue
        return parent / str(number)


def write_recipe(command: str, run: Path, recipe: Mapping[str, Any], *, may_be_files: Sequence[str]) -> None:
    """Writes `RUN/recipe.yaml`, which means the same in any working directory.

    Args:
        command: The command's name, such as `finetune`.
        run: The run directory.
        recipe: Every option of the command but `resume`, by name.
        may_be_files: Options whose value is a name or a file; where there is such a file, its absolute path is written.
    """

    def absolute(value: str) -> str:
        path = Path(value).expanduser()
        # Path.exists fails for a value that is too long for a path, such as a list of class names.
        return str(path.resolve()) if os.path.exists(path) else value  # noqa: PTH110

    files = {name: absolute(recipe[name]) for name in may_be_files}
    paths = {name: value.resolve() for name, value in recipe.items() if isinstance(value, Path)}
    saved = {**recipe, **paths, **files, "out": None}
    with write_atomically(run / "recipe.yaml") as temporary:
        temporary.write_text(resolved_recipe(command, saved), encoding="utf-8")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes a CSV file with the keys of the first row as its header, atomically."""
    # File names need not be valid text; as surrogates they keep their bytes.
    with (
        write_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def environment(*, device: torch.device, processes: int) -> dict[str, Any]:
    """Returns versions, hardware and command line, in plain types."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "packages": {"vggtransfer": vggtransfer.__version__, **{name: metadata.version(name) for name in _PACKAGES}},
    }


def read_environment(run: Path) -> list[dict[str, Any]]:
    """Reads what `write_environment` wrote.

    Raises:
        OptionError: The file is damaged.
        OSError: It cannot be read.
    """
    path = run / ENVIRONMENT_FILE
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OptionError(f"{path}: is damaged ({error}); remove it") from error
    if not isinstance(starts, list) or not starts:
        raise OptionError(f"{path}: is not a list of starts; remove it")
    return starts


def write_environment(run: Path, *, device: torch.device, processes: int) -> None:
    """Adds versions, hardware and command line to the list in `RUN/environment.json`: one entry for each start.

    Raises:
        OptionError: The file is there, but damaged.
        OSError: It cannot be written.
    """
    path = run / ENVIRONMENT_FILE
    starts = [*(read_environment(run) if path.is_file() else []), environment(device=device, processes=processes)]
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(starts, indent=2) + "\n", encoding="utf-8")

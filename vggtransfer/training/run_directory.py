"""The folder that holds all there is to know about one run."""

from __future__ import annotations

import csv
import json
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
from vggtransfer.training.run_paths import check_out

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


def write_environment(run: Path, *, device: torch.device, processes: int) -> None:
    """Adds versions, hardware and command line to the list in `RUN/environment.json`: one entry for each start."""
    path = run / "environment.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    starts = [*earlier, environment(device=device, processes=processes)]
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(starts, indent=2) + "\n", encoding="utf-8")

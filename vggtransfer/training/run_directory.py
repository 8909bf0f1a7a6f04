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

import torch

import vggtransfer
from vggtransfer.cache import write_atomically
from vggtransfer.errors import OptionError

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
        OptionError: `out` exists and is not empty.
    """
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OptionError(f"--out {out}: exists and is not empty; choose another folder, or --resume {out}")
        out.mkdir(parents=True, exist_ok=True)
        return out
    parent = Path("runs") / command
    parent.mkdir(parents=True, exist_ok=True)
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
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def write_environment(run: Path, *, device: torch.device, processes: int) -> None:
    """Writes versions, hardware and command line to `RUN/environment.json`."""
    environment = {
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
    with write_atomically(run / "environment.json") as temporary:
        temporary.write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")

"""`manifest.json`: what lies in a folder of features, how it was made, and the digest of each file."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy
import PIL
import torch

import vggtransfer
from vggtransfer.cache import write_atomically
from vggtransfer.errors import DataError
from vggtransfer.features.extraction_plan import FORMAT

MANIFEST_FILE = "manifest.json"
PLAN_FILE = "plan.json"
ITEMS_FILE = "items.csv"
BAD_PICTURES_FILE = "bad_pictures.csv"


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a manifest or a plan; None if there is none.

    Raises:
        DataError: It is damaged, or was written by a newer version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())}); extract into another folder") from error
    if version != FORMAT:
        raise DataError(f"{path} has format {version}, this version reads {FORMAT}; update vggtransfer")
    return dict(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a manifest or a plan, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Of what decodes, resizes and computes."""
    return {
        "python": platform.python_version(),
        "vggtransfer": vggtransfer.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
    }


def describe_files(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Sizes and SHA-256 by name."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in paths}


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], *, digests: bool) -> None:
    """Compares files with their manifest.

    Raises:
        DataError: One is missing, or has another size or, if asked for, another digest.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing; extract again into another folder")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise DataError(
                f"{path} has {size:,} bytes, its manifest says {expected['bytes']:,}; extract again into another folder"
            )
        if digests and file_digest(path) != expected["sha256"]:
            raise DataError(
                f"{path} is not what its manifest says (SHA-256 differs); extract again into another folder"
            )

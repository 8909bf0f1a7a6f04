"""Part files: the features of some pictures in a row, written whole or not at all.

A part is a safetensors file: one tensor per layer, `index` int64 [rows] (numbers of the pictures in the list), `sha256`
uint8 [rows, 32], and in the header the fingerprint of the plan and the pictures that could not be read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggtransfer.cache import write_atomically
from vggtransfer.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """The header of a part file.

    Attributes:
        path: The file.
        fingerprint: Of the plan it belongs to.
        rows: Pictures in it.
        bad: Numbers of the others in its range, and why.
    """

    path: Path
    fingerprint: str
    rows: int
    bad: tuple[tuple[int, str], ...]

    def array(self, name: str) -> NDArray[Any]:
        """Reads one of its tensors: that of a layer, `index` or `sha256`.

        Raises:
            DataError: The file is damaged.
        """
        with _opened(self.path) as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part-{number:08d}.safetensors"


def present_parts(folder: Path) -> set[int]:
    """The numbers of the parts that are there."""
    if not folder.is_dir():
        return set()
    found = (re.fullmatch(r"part-(\d{8})\.safetensors", path.name) for path in folder.iterdir())
    return {int(match[1]) for match in found if match}


def write_part(
    path: Path,
    *,
    fingerprint: str,
    features: Mapping[str, NDArray[Any]],
    indices: Sequence[int],
    digests: Sequence[bytes],
    bad: Sequence[tuple[int, str]],
) -> None:
    """Writes a part; a kill at any moment leaves either all of it or nothing.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    import numpy as np
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[np.generic]] = {
        **{name: np.ascontiguousarray(rows) for name, rows in features.items()},
        "index": np.asarray(indices, dtype=np.int64),
        "sha256": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32),
    }
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"plan": fingerprint, "bad": json.dumps(list(bad))})


def read_part(path: Path) -> Part:
    """Reads the header of a part.

    Raises:
        DataError: The file is gone or damaged.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        try:
            bad = tuple((int(index), str(reason)) for index, reason in json.loads(metadata["bad"]))
            return Part(path, metadata["plan"], file.get_slice("index").get_shape()[0], bad)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged or gone; delete it if it is there and repeat the command")


def remove_parts(folder: Path) -> None:
    """Removes a folder of parts with all that is in it, also while another process does the same."""
    shutil.rmtree(folder, ignore_errors=True)

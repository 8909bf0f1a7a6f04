"""Large arrays written piece by piece and read by mapping the file: safetensors, npz and npy.

The libraries of these formats want whole arrays; here nothing is ever larger in memory than one piece.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16"}


@dataclass(frozen=True)
class ArrayPieces:
    """An array that comes in pieces along its first axis.

    Attributes:
        shape: Of the whole.
        dtype: `float32` or `float16`.
        pieces: Its rows, in order; can be gone through once.
    """

    shape: tuple[int, ...]
    dtype: str
    pieces: Iterable[NDArray[Any]]

    @property
    def size(self) -> int:
        """Bytes of all numbers together."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def write(self, file: IO[bytes]) -> None:
        """Writes the numbers as they are, little-endian, row after row."""
        little_endian = np.dtype(self.dtype).newbyteorder("<")
        for piece in self.pieces:
            file.write(np.ascontiguousarray(piece, dtype=little_endian).data)


def write_safetensors(path: Path, arrays: Mapping[str, ArrayPieces], *, metadata: Mapping[str, str]) -> None:
    """Writes one safetensors file; see https://huggingface.co/docs/safetensors for the format."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, array in arrays.items():
        end = start + array.size
        header[name] = {
            "dtype": _SAFETENSORS_TYPES[array.dtype],
            "shape": array.shape,
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of 8, so that they can be mapped
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            array.write(file)


def map_safetensors(path: Path, name: str) -> NDArray[Any]:
    """Maps one tensor of a safetensors file, read-only."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[name]
    (dtype,) = (kind for kind, code in _SAFETENSORS_TYPES.items() if code == entry["dtype"])
    return np.memmap(path, dtype, "r", offset=8 + length + entry["data_offsets"][0], shape=tuple(entry["shape"]))


def write_npy(path: Path, array: ArrayPieces) -> None:
    """Writes one array as `numpy.save` would."""
    with path.open("wb") as file:
        _write_npy(file, array)


def map_npy(path: Path) -> NDArray[Any]:
    """Maps what `numpy.save` or `write_npy` wrote, read-only."""
    mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def write_npz(path: Path, arrays: Mapping[str, ArrayPieces]) -> None:
    """Writes arrays as `numpy.savez` would, uncompressed; the same arrays give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as file:
                _write_npy(file, array)


def map_npz(path: Path, name: str) -> NDArray[Any]:
    """Maps one array of what `write_npz` wrote, read-only; numpy itself would read all of it."""
    with zipfile.ZipFile(path) as archive:
        local_header = archive.getinfo(f"{name}.npy").header_offset
    with path.open("rb") as file:
        file.seek(local_header + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)  # the name and the extra field
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)


def _write_npy(file: IO[bytes], array: ArrayPieces) -> None:
    described = np.dtype(array.dtype).newbyteorder("<").str
    np.lib.format.write_array_header_1_0(
        file, {"descr": described, "fortran_order": False, "shape": tuple(array.shape)}
    )
    array.write(file)

"""Features as a table: a Parquet file with one row per picture and one column of fixed-size lists per layer."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray


@dataclass(frozen=True)
class TableRows:
    """Some rows of the table: numbers, paths, digests and labels of pictures, and their features by layer."""

    rows: Sequence[int]
    paths: Sequence[str]
    digests: Sequence[str]
    labels: Sequence[str]
    features: Mapping[str, NDArray[Any]]


def write_parquet(
    path: Path,
    groups: Iterable[TableRows],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    metadata: Mapping[str, str],
) -> None:
    """Writes the table, one row group at a time; maps without pooling are flattened, channels first.

    Args:
        path: The file.
        groups: The rows, in order.
        shapes: Shape of the features of one picture, by layer.
        dtype: `float32` or `float16`.
        metadata: Of the whole file.
    """
    numbers = pa.float32() if dtype == "float32" else pa.float16()
    text = {name: pa.string() for name in ("path", "sha256", "label")}
    lists = {layer: pa.list_(numbers, math.prod(shape)) for layer, shape in shapes.items()}
    schema = pa.schema({"row": pa.int64(), **text, **lists}, metadata=dict(metadata))
    # Features hardly compress, and no value of them occurs twice.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=["label"]) as writer:
        for group in groups:
            columns = [
                pa.array(group.rows, pa.int64()),
                *(pa.array(map(_valid_text, values), pa.string()) for values in (group.paths, group.digests)),
                pa.array(map(_valid_text, group.labels), pa.string()),
                *(
                    pa.FixedSizeListArray.from_arrays(pa.array(group.features[layer].reshape(-1), numbers), type=kind)
                    for layer, kind in lists.items()
                ),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def read_parquet(path: Path, layer: str, *, shape: tuple[int, ...]) -> NDArray[Any]:
    """Reads the column of one layer as [pictures, *shape]."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    column = read_table(content, columns=[layer]).column(layer)
    pieces = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(pieces).reshape(-1, *shape)


def _valid_text(name: str) -> str:
    """File names may hold bytes that are no UTF-8, for which Parquet has no text; they become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_table(content: bytes | memoryview | mmap.mmap, *, columns: list[str] | None = None) -> pa.Table:
    """Reads the content of a Parquet file, in this thread alone.

    A thread of Arrow's pools that has only just started when the interpreter ends aborts the process ("terminate called
    without an active exception"), so none is started: they read files, but not what is in memory, or seems to be.
    """
    return pq.ParquetFile(pa.BufferReader(pa.py_buffer(content))).read(columns=columns, use_threads=False)

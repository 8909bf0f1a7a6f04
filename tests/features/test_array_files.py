from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from vggtransfer.features.array_files import (
    ArrayPieces,
    map_npy,
    map_npz,
    map_safetensors,
    write_npy,
    write_npz,
    write_safetensors,
)
from vggtransfer.features.parquet_files import TableRows, read_parquet, write_parquet


def pieces(array: np.ndarray) -> ArrayPieces:
    """The array in pieces of 3, 0 and 4 rows."""
    return ArrayPieces(array.shape, str(array.dtype), iter((array[:3], array[:0], array[3:])))


@pytest.fixture(params=["float32", "float16"])
def arrays(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "pool5": generator.normal(size=(7, 5)).astype(request.param),
        "relu4_3": generator.normal(size=(7, 3, 2, 2)).astype(request.param),
    }


def test_safetensors_is_what_its_library_reads(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {name: pieces(array) for name, array in arrays.items()}, metadata={"a": "b", "longer": "c"})
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)
        np.testing.assert_array_equal(map_safetensors(path, name), arrays[name], strict=True)
        assert isinstance(map_safetensors(path, name), np.memmap)


def test_npz_is_what_numpy_reads(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_npz(path, {name: pieces(array) for name, array in arrays.items()})
    with np.load(path) as found:
        assert sorted(found) == sorted(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
            np.testing.assert_array_equal(map_npz(path, name), array, strict=True)
            assert isinstance(map_npz(path, name), np.memmap)


def test_npy_is_what_numpy_reads(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    for name, array in arrays.items():
        write_npy(tmp_path / "a.npy", pieces(array))
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array, strict=True)
        np.testing.assert_array_equal(map_npy(tmp_path / "a.npy"), array, strict=True)
        assert isinstance(map_npy(tmp_path / "a.npy"), np.memmap), name


def test_parquet_has_lists_of_fixed_size_beside_paths_and_labels(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    def group(start: int, stop: int) -> TableRows:
        rows = range(start, stop)
        features = {name: array[start:stop] for name, array in arrays.items()}
        # The last name has a byte that is no UTF-8.
        return TableRows(rows, [f"{row}\udcff.png" for row in rows], ["ab"] * len(rows), ["rose"] * len(rows), features)

    path = tmp_path / "a.parquet"
    shapes = {name: array.shape[1:] for name, array in arrays.items()}
    dtype = str(arrays["pool5"].dtype)
    write_parquet(path, [group(0, 3), group(3, 7)], shapes=shapes, dtype=dtype, metadata={"a": "b"})
    table = pq.read_table(path)
    assert table.column_names == ["row", "path", "sha256", "label", "pool5", "relu4_3"]
    assert table.schema.field("relu4_3").type.list_size == 12
    assert table.schema.metadata[b"a"] == b"b"
    assert table.column("row").to_pylist() == list(range(7))
    assert table.column("path").to_pylist()[6] == "6\\xff.png"
    assert set(table.column("label").to_pylist()) == {"rose"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(read_parquet(path, name, shape=shapes[name]), array, strict=True)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads by /proc")
def test_tables_are_read_without_threads(tmp_path: Path) -> None:
    """One that Arrow has just started when the interpreter ends aborts the process."""
    program = (
        "import sys, time; from pathlib import Path; import pyarrow as pa, pyarrow.parquet as pq\n"
        "from vggtransfer.features.parquet_files import read_table\n"
        "path = Path(sys.argv[1]); pq.write_table(pa.table({name: [1, 2] for name in 'abcd'}), path)\n"
        "def threads():\n"
        "    time.sleep(0.2)  # its allocator's own thread takes a moment to tell its name\n"
        "    names = [each.read_text() for each in Path('/proc/self/task').glob('*/comm')]\n"
        "    return sum('jemalloc' not in name for name in names)\n"
        "before = threads(); print(read_table(path.read_bytes()).num_columns, threads() - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "table.parquet")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["4", "0"]

"""What `vggtransfer extract` wrote, read again."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import DataError, did_you_mean
from vggtransfer.features.array_files import map_npy, map_npz, map_safetensors
from vggtransfer.features.extraction_folder import PARTS_FOLDER
from vggtransfer.features.extraction_plan import FileFormat
from vggtransfer.features.manifest import ITEMS_FILE, MANIFEST_FILE, PLAN_FILE, check_files, read_json


class LayerArrays(Mapping[str, NDArray[Any]]):
    """The features by layer, float32 or float16 [pictures, ...], opened when they are asked for.

    Mapped from the file, read-only: what is looked at is read, and nothing else. Those of Parquet files are read whole.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self._folder = folder
        self._format: FileFormat = manifest["file_format"]
        self._shapes = {name: tuple(shape) for name, shape in manifest["layers"].items()}
        self._open: dict[str, NDArray[Any]] = {}

    def __getitem__(self, layer: str) -> NDArray[Any]:
        if layer not in self._shapes:
            raise KeyError(f"no features of '{layer}' here{did_you_mean(layer, self._shapes)}; {', '.join(self)}")
        if layer not in self._open:
            self._open[layer] = self._opened(layer)
        return self._open[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __repr__(self) -> str:
        return f"LayerArrays({', '.join(f'{name}: {list(shape)}' for name, shape in self._shapes.items())})"

    def _opened(self, layer: str) -> NDArray[Any]:
        match self._format:
            case "safetensors":
                return map_safetensors(self._folder / "features.safetensors", layer)
            case "npz":
                return map_npz(self._folder / "features.npz", layer)
            case "memmap":
                return map_npy(self._folder / f"{layer}.npy")
            case "parquet":
                from vggtransfer.features.parquet_files import read_parquet

                return read_parquet(self._folder / "features.parquet", layer, shape=self._shapes[layer])


@dataclass(frozen=True)
class FeatureSet:
    """The features of a folder of pictures.

    Attributes:
        folder: Where they lie.
        features: By layer, [pictures, ...].
        paths: Of the pictures, below the folder that was given as `data`.
        labels: Text [pictures]: the class folder of each picture, empty where there is none.
        sha256: Of the content of each file, hexadecimal.
        manifest: Encoder, preprocessing and all else that `manifest.json` holds.
    """

    folder: Path
    features: Mapping[str, NDArray[Any]]
    paths: tuple[str, ...] = field(repr=False)
    labels: NDArray[np.str_] = field(repr=False)
    sha256: tuple[str, ...] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)


def load_features(folder: str | Path, *, check_digests: bool = False) -> FeatureSet:
    """Opens what `vggtransfer extract` wrote.

    Args:
        folder: Its `--out`.
        check_digests: Compare the SHA-256 of all files with the manifest; without, only their sizes.

    Raises:
        DataError: There are no features, they are not finished, or a file is not what its manifest says.
    """
    folder = Path(folder).expanduser()
    manifest = read_json(folder / MANIFEST_FILE)
    if manifest is None:
        if (folder / PARTS_FOLDER / PLAN_FILE).exists():
            raise DataError(f"{folder}: this extraction is not finished; repeat its command to go on")
        raise DataError(f"{folder}: there are no features here, it has no {MANIFEST_FILE}")
    check_files(folder, manifest["files"], digests=check_digests)
    with (folder / ITEMS_FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        items = [(item["path"], item["label"], item["sha256"]) for item in csv.DictReader(file)]
    paths, labels, digests = zip(*items, strict=True)
    return FeatureSet(folder, LayerArrays(folder, manifest), paths, np.array(labels, dtype=np.str_), digests, manifest)

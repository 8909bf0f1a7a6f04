"""What an extraction computes, whoever computes it when: the part of a manifest that is known beforehand."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vggtransfer.features.encoder_choice import FeaturePrecision
from vggtransfer.features.pooling import PoolName

FileFormat = Literal["safetensors", "npz", "parquet", "memmap"]
StoredType = Literal["fp32", "fp16"]

NUMPY_TYPES: Mapping[StoredType, str] = {"fp32": "float32", "fp16": "float16"}

FORMAT = 1
"""Version of the manifest and of what it describes."""

# Enough for a batch or more, little enough to lose: some seconds of work on a GPU, a minute on a CPU.
_FEWEST_PICTURES, _MOST_PICTURES = 64, 512
# Maps without pooling are large: a part is held in memory before it is written.
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ExtractionPlan:
    """Everything that the numbers depend on, and how the work is divided.

    Attributes:
        architecture: Of the encoder.
        origin: Where its weights came from.
        digest: SHA-256 of its trunk.
        shapes: Shape of the features of one picture by layer, in the order asked for.
        pool: How maps were summed up.
        image_size: Side of the pictures in pixels.
        crop_fraction: Part of the short side that was kept.
        mean: RGB, of pictures in [0, 1].
        std: As `mean`.
        precision: Of the computation; never `auto`.
        store: Type of the numbers in the files.
        file_format: Kind of the files.
        pictures: How many there are, bad ones among them.
        list_digest: SHA-256 of their paths.
    """

    architecture: str
    origin: str
    digest: str
    shapes: Mapping[str, tuple[int, ...]]
    pool: PoolName
    image_size: int
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: FeaturePrecision
    store: StoredType
    file_format: FileFormat
    pictures: int
    list_digest: str

    def description(self) -> dict[str, Any]:
        """The plan in plain types, as it stands in `plan.json` and at the top of `manifest.json`."""
        return {
            "format": FORMAT,
            "encoder": {"architecture": self.architecture, "origin": self.origin, "digest": self.digest},
            "layers": {name: list(shape) for name, shape in self.shapes.items()},
            "pool": self.pool,
            "preprocessing": {
                "image_size": self.image_size,
                "crop_fraction": self.crop_fraction,
                "mean": list(self.mean),
                "std": list(self.std),
            },
            "precision": self.precision,
            "store": self.store,
            "file_format": self.file_format,
            "list": {"pictures": self.pictures, "sha256": self.list_digest},
        }

    @property
    def fingerprint(self) -> str:
        """The same for plans that give the same files."""
        return hashlib.sha256(json.dumps(identity(self.description())).encode()).hexdigest()

    @property
    def pictures_per_part(self) -> int:
        """How many pictures are computed, written and, after a kill, lost together."""
        # At least 64 parts where that is possible without tiny ones, in steps that usual batches divide.
        by_count = min(_MOST_PICTURES, max(_FEWEST_PICTURES, self.pictures // 64 // 64 * 64))
        return max(1, min(by_count, _MOST_BYTES // self.bytes_per_picture))

    @property
    def bytes_per_picture(self) -> int:
        return sum(map(math.prod, self.shapes.values())) * (2 if self.store == "fp16" else 4)

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.pictures // self.pictures_per_part)

    def part_range(self, number: int) -> range:
        """The numbers of the pictures in a part."""
        start = number * self.pictures_per_part
        return range(start, min(start + self.pictures_per_part, self.pictures))


def identity(description: Mapping[str, Any]) -> dict[str, str]:
    """What two extractions must agree on to be the same, by the names of the options."""
    encoder, seen = description["encoder"], description["preprocessing"]
    pixels = {name: "/".join(f"{value:.6g}" for value in seen[name]) for name in ("mean", "std")}
    return {
        "encoder": f"{encoder['architecture']} {encoder['digest'][:16]}",
        "layers": ",".join(description["layers"]),
        "pool": description["pool"],
        "image-size": str(seen["image_size"]),
        "crop-fraction": f"{seen['crop_fraction']:g}",
        "mean": pixels["mean"],
        "std": pixels["std"],
        "precision": description["precision"],
        "store": description["store"],
        "format": description["file_format"],
        "pictures": f"{description['list']['pictures']} (list {description['list']['sha256'][:8]})",
    }


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names what differs between two descriptions; empty if nothing does."""
    old, new = identity(there), identity(now)
    return "; ".join(f"{name} {old[name]} there, {new[name]} now" for name in new if old[name] != new[name])

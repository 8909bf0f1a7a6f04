"""Pictures without labels for training: found, decoded once, and a part of them set aside."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggtransfer.data.folders import Sample
from vggtransfer.data.picture_files import find_pictures, seen_instead
from vggtransfer.data.scan import BadPicture, OnBadImage, check_pictures
from vggtransfer.errors import DataError


@dataclass(frozen=True)
class TrainingPictures:
    """The pictures of a folder and everything below it.

    Attributes:
        root: The folder.
        train: Pictures to train on; all have the label 0.
        validation: Pictures set aside.
        bad: Files that cannot be decoded.
        hashes: SHA-256 of the content of each good file.
    """

    root: Path
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    bad: tuple[BadPicture, ...]
    hashes: Mapping[Path, str]

    def rows(self) -> list[dict[str, str]]:
        """One per picture, as in `pictures.csv`: path below the folder, which part it is in, SHA-256."""
        return [
            {"path": sample.path.relative_to(self.root).as_posix(), "part": part, "sha256": self.hashes[sample.path]}
            for part, samples in (("train", self.train), ("validation", self.validation))
            for sample in samples
        ]


def load_training_pictures(
    folder: Path, *, val_fraction: float, seed: int, on_bad_image: OnBadImage
) -> TrainingPictures:
    """Finds, checks and divides the pictures of a folder.

    Which are set aside is drawn by their names, so other pictures that come or go move none.

    Raises:
        DataError: No such folder, fewer than two pictures in it, or an unreadable one that is not to be skipped.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths, others = find_pictures(folder)
    check = check_pictures([Sample(path, 0) for path in paths], on_bad_image=on_bad_image, progress=True)
    if len(check.good) < 2:
        bad = f", and {len(check.bad)} unreadable" if check.bad else ""
        raise DataError(
            f"{folder} has {len(check.good)} pictures{bad}{seen_instead(others)}; training needs two or more"
        )

    def draw(sample: Sample) -> bytes:
        name = sample.path.relative_to(folder).as_posix()
        return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()

    count = min(max(1, round(val_fraction * len(check.good))), len(check.good) - 1)
    aside = {sample.path for sample in sorted(check.good, key=draw)[:count]}
    return TrainingPictures(
        folder,
        tuple(sample for sample in check.good if sample.path not in aside),
        tuple(sample for sample in check.good if sample.path in aside),
        check.bad,
        check.hashes,
    )


def fingerprint(values: Any) -> str:
    """16 hexadecimal digits that change whenever the plain values do."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]

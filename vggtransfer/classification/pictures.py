"""The pictures of a fine-tuning run: read, checked, and summed up for the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vggtransfer.data.folders import Sample, read_folders
from vggtransfer.data.scan import BadPicture, check_folders


@dataclass(frozen=True)
class LabelledPictures:
    """Training and validation pictures that can all be decoded.

    Attributes:
        root: The data folder.
        classes: Class names; labels are positions in it.
        bad: What cannot be decoded and was left out.
        hashes: SHA-256 of each picture file.
        warnings: What is odd about the data, in plain sentences.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    bad: tuple[BadPicture, ...]
    hashes: Mapping[Path, str]
    warnings: tuple[str, ...]

    def rows(self) -> list[dict[str, str]]:
        """One row a picture: path relative to the data folder, label, split and content hash."""
        return [
            {
                "path": sample.path.relative_to(self.root).as_posix(),
                "label": self.classes[sample.label],
                "split": split,
                "sha256": self.hashes[sample.path],
            }
            for split, samples in (("train", self.train), ("val", self.val))
            for sample in samples
        ]


def load_pictures(
    data: Path, *, val_fraction: float, seed: int, on_bad_image: Literal["skip", "stop"], progress: bool
) -> LabelledPictures:
    """Finds, splits and checks the pictures of a folder.

    Every file is decoded once before training starts (results are cached), so that no bad one can surprise it later.

    Raises:
        DataError: No usable folder layout, a class left without pictures, or a bad picture where those shall stop.
    """
    found = read_folders(data, val_fraction=val_fraction, seed=seed)
    folders, check = check_folders(found, on_bad_image=on_bad_image, progress=progress)
    return LabelledPictures(
        root=folders.root,
        classes=folders.classes,
        train=folders.train,
        val=folders.val,
        bad=check.bad,
        hashes=check.hashes,
        warnings=folders.warnings,
    )

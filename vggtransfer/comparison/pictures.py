"""The pictures of a comparison: the same for every network, in the same order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vggtransfer.classification.pictures import LabelledPictures
from vggtransfer.data.folders import Sample, read_folders
from vggtransfer.data.scan import check_folders
from vggtransfer.errors import OptionError


@dataclass(frozen=True)
class ComparedPictures:
    """What the networks of a comparison are trained and tested on.

    Attributes:
        pictures: The training pictures, and as `val` those of the test.
        split: Where the latter come from: the folder `test`, the folder `val`, or a part of the training pictures set
            aside.
        available: Training pictures there would have been without a limit.
    """

    pictures: LabelledPictures
    split: Literal["test", "val", "set aside"]
    available: int

    @property
    def counts(self) -> str:
        """How many there are, in words."""
        train, test = len(self.pictures.train), len(self.pictures.val)
        shown = f"{train:,}" if train == self.available else f"{train:,} of {self.available:,}"
        return f"{shown} training and {test:,} test pictures of {len(self.pictures.classes)} classes"

    def rows(self) -> list[dict[str, str]]:
        """One row a picture: path relative to the data folder, label, split and content hash."""
        return [row | {"split": "test" if row["split"] == "val" else "train"} for row in self.pictures.rows()]


def load_compared_pictures(data: Path, *, limit: int | None, seed: int, progress: bool) -> ComparedPictures:
    """Finds and checks the pictures: all of `train`, tested on `test` if there is one, else on `val`.

    Without a folder `test` or `val`, a fifth of the training pictures is set aside. Unreadable ones are left out.

    Args:
        data: The data folder.
        limit: Training pictures to use, of each class in proportion; None for all.
        seed: Chooses them, and those set aside.
        progress: Show how far the check is.

    Raises:
        DataError: No usable folder layout, or a class left without pictures.
        OptionError: A limit below the number of classes.
    """
    folders, check = check_folders(read_folders(data, seed=seed, test_is_enough=True), progress=progress)
    split: Literal["test", "val", "set aside"]
    if folders.test:
        test, split = folders.test, "test"
    else:
        below = {samples[0].path.relative_to(data).parts[0] for samples in (folders.train, folders.val)}
        aside = folders.layout == "flat" or len(below) == 1
        test, split = folders.val, "set aside" if aside else "val"
    classes = len(folders.classes)
    if limit is not None and limit < classes:
        raise OptionError(f"--train-limit {limit} is fewer than the {classes} classes; use {classes} or more")
    pictures = LabelledPictures(
        root=folders.root,
        classes=folders.classes,
        train=folders.train if limit is None else limited(folders.train, limit, root=data, seed=seed),
        val=test,
        bad=check.bad,
        hashes=check.hashes,
        warnings=folders.warnings,
    )
    return ComparedPictures(pictures, split, available=len(folders.train))


def limited(samples: Sequence[Sample], count: int, *, root: Path, seed: int) -> tuple[Sample, ...]:
    """Draws samples of every class in proportion; a smaller draw is part of a larger one with the same seed."""
    sizes = Counter(sample.label for sample in samples)

    def draw(sample: Sample) -> bytes:
        below = sample.path.relative_to(root).as_posix()
        return hashlib.sha256(f"limit/{seed}/{below}".encode("utf-8", "surrogateescape")).digest()

    taken: Counter[int] = Counter()
    places: list[tuple[float, bytes, Sample]] = []
    for key, sample in sorted(((draw(sample), sample) for sample in samples), key=lambda pair: pair[0]):
        # The first picture of each class comes before the second of any.
        places.append((taken[sample.label] / sizes[sample.label], key, sample))
        taken[sample.label] += 1
    chosen = {sample for _, _, sample in sorted(places, key=lambda place: place[:2])[:count]}
    return tuple(sample for sample in samples if sample in chosen)

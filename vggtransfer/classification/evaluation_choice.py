"""Which of the pictures there are an evaluation takes, so that it can be honest about those trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vggtransfer.data.folders import Sample, read_split
from vggtransfer.errors import DataError
from vggtransfer.training.training_record import TrainingRecord


@dataclass(frozen=True)
class Candidates:
    """Pictures to choose from, before their content is known."""

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    folder: Path
    """The data folder, or the folder in it that holds the split."""
    keep: Literal["all", "train", "val", "unseen"]
    """`train` and `val` are the run's own splits; `unseen` is what the model was not trained on."""


def find_candidates(
    data: Path, split: Literal["auto", "train", "val", "test", "all"], record: TrainingRecord | None
) -> Candidates:
    """Finds the pictures that `evaluate` may use. What the folder itself does not divide, the run's record does.

    Raises:
        DataError: The folder or the split is missing or has no pictures.
    """
    try:
        classes, samples = read_split(data, split)
    except DataError:
        if record is None or split not in ("auto", "train", "val"):
            raise
        classes, samples = read_split(data, "all")
        return Candidates(classes, samples, data, "unseen" if split == "auto" else split)
    below = [sample.path.relative_to(data).parts for sample in samples]
    if all(parts[0] == classes[sample.label] for parts, sample in zip(below, samples, strict=True)):
        return Candidates(classes, samples, data, "unseen" if split == "auto" and record else "all")
    folders = {parts[0] for parts in below}
    return Candidates(classes, samples, data / folders.pop() if len(folders) == 1 else data, "all")


def choose_samples(
    candidates: Candidates, good: Sequence[Sample], hashes: Mapping[Path, str], record: TrainingRecord | None
) -> list[Sample]:
    """Picks the samples to evaluate out of those that can be read.

    Raises:
        DataError: None is left.
    """
    if record is None or candidates.keep == "all":
        return list(good)
    if candidates.keep == "unseen":
        chosen = [sample for sample in good if hashes[sample.path] not in record.train]
        if not chosen:
            raise DataError(
                f"all {len(good)} pictures are in the training set of this model; --split all scores them all the same"
            )
        return chosen
    chosen = [sample for sample in good if hashes[sample.path] in record.of(candidates.keep)]
    if not chosen:
        raise DataError(
            f"--split {candidates.keep}: none of the {len(good)} pictures is in that split of the model's run; "
            "use --split all"
        )
    return chosen

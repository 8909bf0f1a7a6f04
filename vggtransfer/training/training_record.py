"""Which pictures a model was trained on, as its run directory tells, so that evaluation can be honest about them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RECORD_FILE = "pictures.csv"

_SPLITS = ("train", "val")


@dataclass(frozen=True)
class TrainingRecord:
    """Content hashes (SHA-256, hexadecimal) of the pictures a run trained and validated on."""

    train: frozenset[str]
    val: frozenset[str]

    def of(self, split: Literal["train", "val"]) -> frozenset[str]:
        return self.train if split == "train" else self.val


def read_training_record(model: Path) -> TrainingRecord | None:
    """Reads the record beside a model; None for a model that has none, such as a file copied out of its run.

    The networks of a comparison share one, in the folder above.
    """
    folder = model if model.is_dir() else model.parent
    for place in (folder, folder.parent):
        path = place / RECORD_FILE
        if path.is_file() and (place == folder or (place / "recipe.yaml").is_file()):
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
            if {"path", "split", "sha256"} <= set(reader.fieldnames or ()):
                train, val = (frozenset(row["sha256"] for row in rows if row["split"] == name) for name in _SPLITS)
                return TrainingRecord(train, val) if train else None
    return None

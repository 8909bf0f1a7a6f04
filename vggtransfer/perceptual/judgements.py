"""Pictures that people have judged, in the folders of BAPPS (Zhang et al. 2018)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vggtransfer.data.picture_files import find_pictures
from vggtransfer.errors import DataError

Kind = Literal["2afc", "jnd"]
_FOLDERS: dict[Kind, tuple[str, ...]] = {"2afc": ("ref", "p0", "p1", "judge"), "jnd": ("p0", "p1", "same")}


@dataclass(frozen=True)
class Judgement:
    """One question to people, and the share of their answers.

    Attributes:
        pictures: Reference, first and second picture for 2AFC; the two pictures for JND.
        share: Of people who found the second picture closer to the reference (2AFC), or who took the two for the same
            picture (JND); 0 to 1.
    """

    pictures: tuple[Path, ...]
    share: float


@dataclass(frozen=True)
class JudgedSet:
    """All judgements of one folder."""

    name: str
    kind: Kind
    judgements: tuple[Judgement, ...]


def find_judged_sets(data: Path) -> tuple[JudgedSet, ...]:
    """Finds all folders below `data`, or `data` itself, with the sub-folders of BAPPS.

    2AFC: `ref`, `p0` and `p1` with pictures and `judge` with `.npy` files of the same names; JND: `p0`, `p1` and
    `same`.

    Raises:
        DataError: There is none, or files are missing or damaged.
    """
    if not data.is_dir():
        raise DataError(f"{data}: there is no such folder")
    sets: list[JudgedSet] = []
    for folder, names, _ in os.walk(data, followlinks=True):
        names.sort()
        for kind, needed in _FOLDERS.items():
            if set(needed) <= set(names):
                name = Path(folder).relative_to(data).as_posix()
                sets.append(JudgedSet(data.name if name == "." else name, kind, _read(Path(folder), needed)))
    if not sets:
        raise DataError(
            f"{data}: no folder with ref, p0, p1 and judge (2AFC) or with p0, p1 and same (JND) there, as in BAPPS"
        )
    return tuple(sets)


def _read(folder: Path, needed: tuple[str, ...]) -> tuple[Judgement, ...]:
    *picture_folders, answers = needed
    files = [{path.stem: path for path in find_pictures(folder / name)[0]} for name in picture_folders]
    shares = {path.stem: path for path in sorted((folder / answers).glob("*.npy"))}
    if not shares:
        raise DataError(f"{folder / answers}: no .npy files with the answers of people")
    judgements = []
    for stem, path in shares.items():
        for name, found in zip(picture_folders, files, strict=True):
            if stem not in found:
                raise DataError(f"{path} has no picture {folder / name / stem}.png")
        judgements.append(Judgement(tuple(found[stem] for found in files), _share(path)))
    return tuple(judgements)


def _share(path: Path) -> float:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is no file of numpy ({error})") from error
    if values.size != 1 or not 0 <= float(values.reshape(())) <= 1:
        raise DataError(
            f"{path}: expected one number from 0 to 1, the share of people; it holds {values.tolist()!r:.60}"
        )
    return float(values.reshape(()))

"""Folders of pictures to labelled samples: `DIR/train/CLASS/*` beside val and test, or flat `DIR/CLASS/*`."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vggtransfer.data.decode import PICTURE_SUFFIXES
from vggtransfer.data.picture_files import find_pictures, seen_instead, subfolders, visible_entries
from vggtransfer.errors import DataError, OptionError

Layout: TypeAlias = Literal["split", "flat"]
SplitName: TypeAlias = Literal["train", "val", "test"]

_SPLIT_NAMES: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Sample:
    """A picture file and the number of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class PictureFolders:
    """Labelled pictures, sorted by path; a label is an index into `classes`."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    layout: Layout
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ClassFolders:
    """Where class folders lie: in the folders `splits`, or, where there are none, in the data folder itself."""

    splits: frozenset[str]

    def label(self, name: str) -> str:
        """Returns the class of a picture by its path below the data folder; empty if it lies in no class folder."""
        *folders, _ = name.split("/")
        if self.splits:
            folders = folders[1:] if folders and folders[0] in self.splits else []
        return folders[0] if folders else ""


@dataclass
class _Found:
    """What lies below one folder of class folders: pictures by class, and files that are none."""

    pictures: dict[str, list[Path]] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)


def read_folders(
    data: Path, *, val_fraction: float = 0.2, seed: int = 0, test_is_enough: bool = False
) -> PictureFolders:
    """Finds the pictures for training, validation and test; opens none of them.

    A class is a folder with pictures at any depth. Without a folder `val` (or `valid`, `validation`), a part of the
    training pictures is set aside for validation; which ones depends on the seed, their class and their path below
    the class folder alone.

    Args:
        data: A folder with the layout `train|val|test/CLASS/*` or `CLASS/*`.
        val_fraction: Part of the pictures set aside if there is no validation folder; each class with two or more
            pictures keeps at least one on each side.
        seed: Chooses the pictures set aside.
        test_is_enough: With a folder `test`, set none aside; `val` may then be empty.

    Raises:
        DataError: The folder is missing, has no pictures, fewer than two classes, or classes in val or test that
            train does not have.
        OptionError: `val_fraction` is not between 0 and 1.
    """
    if not 0 < val_fraction < 1:
        raise OptionError(f"val_fraction must lie between 0 and 1, got {val_fraction:g}; for example 0.2")
    data = Path(data)
    folders = _split_folders(data)
    if folders and "train" not in folders:
        raise DataError(f"{data} has {_names(folders)} but no train folder; add {data / 'train'} with class folders")
    found = {split: _find_classes(folder) for split, folder in (folders or {"train": data}).items()}
    warnings: list[str] = []

    train_root = folders.get("train", data)
    filled = {name for name, pictures in found["train"].pictures.items() if pictures}
    _check_classes(data, train_root, found["train"], filled)
    classes = tuple(sorted(filled))
    for split in [name for name in ("val", "test") if name in found]:
        here = {name for name, pictures in found[split].pictures.items() if pictures}
        if strange := sorted(here - filled):
            raise DataError(
                f"{folders[split]} has classes that {train_root} has not: {_list(strange)}; "
                f"rename, move or remove them (train has: {_list(classes)})"
            )
        if not here and split == "val":
            raise DataError(
                f"no pictures in {folders['val']}{seen_instead(found['val'].others)}; fill it, "
                "or remove it to have a part of the training pictures set aside"
            )
        if missing := sorted(filled - here):
            warnings.append(
                f"{folders[split]} has no pictures of {_count(missing, 'class', 'classes')}: {_list(missing)}."
            )
    warnings += _remarks(found["train"], train_root)
    for split in ("val", "test"):
        if split in found:
            warnings += _remarks(found[split], folders[split], note_empty=False)
    known = {*_SPLIT_NAMES, "masks"}  # a data set that serves segmentation as well keeps its masks there
    if folders and (beside := [name for name in subfolders(data) if name.lower() not in known]):
        warnings.append(f"Folders beside {folders['train']} are not used: {_list(beside)}.")

    train, val, test = (_samples(found[name], classes) if name in found else () for name in ("train", "val", "test"))
    if "val" not in found and not (test and test_is_enough):
        train, val = _split_samples(train, train_root, classes, val_fraction, seed)
        if not val:
            raise DataError(
                f"every class in {train_root} has one picture only, so none can be set aside for validation; "
                "add pictures or a val folder"
            )
    return PictureFolders(data, classes, train, val, test, "split" if folders else "flat", tuple(warnings))


def read_split(
    data: Path, split: Literal["auto", "train", "val", "test", "all"] = "auto"
) -> tuple[tuple[str, ...], tuple[Sample, ...]]:
    """Finds the pictures to evaluate on; returns the class names and the samples.

    Args:
        data: A folder with the layout `train|val|test/CLASS/*` or `CLASS/*`.
        split: `auto` takes test, else val, else all of a flat folder; `all` takes everything there is.

    Raises:
        DataError: The folder or the split is missing or has no pictures.
    """
    data = Path(data)
    folders: Mapping[str, Path] = {str(name): folder for name, folder in _split_folders(data).items()}
    chosen: Sequence[str]
    if not folders:
        if split not in ("auto", "all"):
            raise DataError(f"{data} has no {split} folder, only class folders; use the split 'all' or 'auto'")
        folders, chosen = {"all": data}, ["all"]
    elif split == "all":
        chosen = [name for name in ("train", "val", "test") if name in folders]
    elif split == "auto":
        chosen = [name for name in ("test", "val") if name in folders][:1]
        if not chosen:
            raise DataError(f"{data} has neither a test nor a val folder; use the split 'train' if you mean it")
    else:
        chosen = [split]
        if split not in folders:
            raise DataError(f"{data} has no {split} folder, only {_names(folders)}")
    found = {name: _find_classes(folder) for name, folder in folders.items()}
    # Class folders of the other splits count: a test folder may lack a class that the model knows.
    classes = tuple(sorted({name for one in found.values() for name, pictures in one.pictures.items() if pictures}))
    samples = tuple(sample for name in chosen for sample in _samples(found[name], classes))
    if not samples:
        where = data if chosen == ["all"] else folders[chosen[0]]
        raise DataError(_nothing_found(where, found[chosen[0]]))
    return classes, samples


def find_class_folders(data: Path) -> ClassFolders:
    """Tells the layout as `read_split` sees it; raises DataError without a folder, or with two for the same split."""
    return ClassFolders(frozenset(folder.name for folder in _split_folders(Path(data)).values()))


def _find_classes(folder: Path) -> _Found:
    found = _Found()
    for entry in visible_entries(folder):
        path = folder / entry.name
        if entry.is_dir():
            found.pictures[entry.name], others = find_pictures(path)
            found.others += others
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            found.loose.append(path)
        else:
            found.others.append(path)
    return found


def _split_folders(data: Path) -> dict[SplitName, Path]:
    """Returns the folders train, val and test, or nothing for the flat layout."""
    if not data.exists():
        raise DataError(f"no such folder: {data}")
    if not data.is_dir():
        raise DataError(f"{data} is a file; expected a folder with one folder of pictures per class")
    inside = subfolders(data)
    named: dict[SplitName, list[str]] = {}
    for name in inside:
        if name.lower() in _SPLIT_NAMES:
            named.setdefault(_SPLIT_NAMES[name.lower()], []).append(name)
    split_names = list(itertools.chain(*named.values()))
    if len(split_names) < len(inside) and not any(subfolders(data / name) for name in split_names):
        return {}  # a class may be called "train" too: then the pictures lie directly in it
    for split, names in named.items():
        if len(names) > 1:
            raise DataError(f"{data} has more than one folder for {split}: {_list(names)}; keep one of them")
    return {split: data / names[0] for split, names in named.items()}


def _check_classes(data: Path, folder: Path, found: _Found, classes: set[str]) -> None:
    if not classes:
        raise DataError(_nothing_found(folder, found))
    if len(classes) == 1:
        (only,) = classes
        hint = f"; did you mean {data / only}?" if folder == data and subfolders(data / only) else ""
        raise DataError(f"{folder} has pictures of one class only ({only}), two are needed{hint}")


def _nothing_found(folder: Path, found: _Found) -> str:
    if found.loose:
        example = folder / "CLASS" / found.loose[0].name
        return (
            f"{folder} has {_count(found.loose, 'picture', 'pictures')} but no class folders; "
            f"move the pictures of each class into a folder of its own, such as {example}"
        )
    return f"no pictures in {folder}{seen_instead(found.others)}; expected one folder of pictures per class"


def _remarks(found: _Found, folder: Path, *, note_empty: bool = True) -> Iterator[str]:
    empty = sorted(name for name, pictures in found.pictures.items() if not pictures)
    single = sorted(name for name, pictures in found.pictures.items() if len(pictures) == 1)
    if note_empty and empty:
        yield f"{folder} has {_count(empty, 'class', 'classes')} without pictures, left out: {_list(empty)}."
    if note_empty and single:
        yield f"{folder} has {_count(single, 'class', 'classes')} with one picture only: {_list(single)}."
    if found.loose:
        yield f"{_count(found.loose, 'picture', 'pictures')} directly in {folder}, in no class folder, not used."
    if found.others:
        first = found.others[0].relative_to(folder)
        yield f"{_count(found.others, 'file', 'files')} in {folder} not taken for pictures by name, such as {first}."


def _samples(found: _Found, classes: Sequence[str]) -> tuple[Sample, ...]:
    return tuple(Sample(path, label) for label, name in enumerate(classes) for path in found.pictures.get(name, ()))


def _split_samples(
    samples: Sequence[Sample], root: Path, classes: Sequence[str], fraction: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Sets `round(fraction * n)` samples aside, by class in proportion, as far as one can stay on each side."""
    sizes = Counter(sample.label for sample in samples)
    wanted = [fraction * sizes[label] for label in range(len(classes))]
    lowest = [min(1, sizes[label] - 1) for label in range(len(classes))]
    highest = [max(lowest[label], sizes[label] - 1) for label in range(len(classes))]
    counts = [min(max(int(want), low), high) for want, low, high in zip(wanted, lowest, highest, strict=True)]
    # Largest remainders first, so that the total is exact too.
    total = min(max(round(fraction * len(samples)), sum(lowest)), sum(highest))
    order = sorted(range(len(classes)), key=lambda label: counts[label] - wanted[label])
    while sum(counts) != total:
        missing = total - sum(counts)
        step = 1 if missing > 0 else -1
        free = [label for label in order[::step] if lowest[label] <= counts[label] + step <= highest[label]]
        for label in free[: abs(missing)]:
            counts[label] += step

    def draw(sample: Sample) -> bytes:
        # A number of its own for each picture: neither the order of files nor other classes nor new files change it.
        below = sample.path.relative_to(root).as_posix()
        return hashlib.sha256(f"{seed}/{below}".encode("utf-8", "surrogateescape")).digest()

    aside: set[Path] = set()
    for label, of_class in itertools.groupby(samples, key=lambda sample: sample.label):
        aside.update(sample.path for sample in sorted(of_class, key=draw)[: counts[label]])
    return (
        tuple(sample for sample in samples if sample.path not in aside),
        tuple(sample for sample in samples if sample.path in aside),
    )


def _list(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _names(folders: Mapping[Any, Path]) -> str:
    return " and ".join(folder.name for folder in folders.values())


def _count(things: Sequence[object], one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"

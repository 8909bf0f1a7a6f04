"""Folders of pictures and masks, as people and public data sets lay them out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from vggtransfer.data.picture_files import find_pictures, subfolders
from vggtransfer.errors import DataError

SplitName: TypeAlias = Literal["train", "val", "test"]

_SPLITS: Mapping[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_PICTURE_FOLDERS = ("images", "image", "imgs", "img", "pictures")
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation")
_ENDINGS = re.compile(r"([_-](mask|masks|label|labels|gt|seg|L)|_gtFine_label(TrainI|I)ds)$")
_SHOWN = """\
DIR/train/images/* with DIR/train/masks/* (and the same for val and test), or DIR/images/* with DIR/masks/*"""


@dataclass(frozen=True)
class MaskedSample:
    """A picture and what was painted over it.

    Attributes:
        path: The picture.
        masks: Its mask; or one of each class, in the order of `Layout.layers`.
    """

    path: Path
    masks: tuple[Path, ...]


@dataclass
class Layout:
    """What was found.

    Attributes:
        name: The layout, in words.
        splits: Pictures with masks, sorted by path; one split "train" where the folder knows no splits.
        layers: Names of the classes that have masks of their own; empty where a mask holds all classes.
        has_splits: Whether the folder has splits.
        unmatched: Pictures without a mask: (split, file, reason).
        orphans: Masks without a picture.
    """

    name: str
    splits: dict[SplitName, list[MaskedSample]] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    has_splits: bool = True
    unmatched: list[tuple[SplitName, Path, str]] = field(default_factory=list)
    orphans: list[Path] = field(default_factory=list)


def find_masked_pictures(data: Path) -> Layout:
    """Finds the pictures of a folder and the masks that belong to them, by name; opens none of them.

    A mask has its picture's name, or that and `_mask`, `_label`, `_gt`, `_seg` or `_L`. Understood are:

    - `SPLIT/images/*` with `SPLIT/masks/*`; `images/*` with `masks/*`; `images/SPLIT/*` with `masks/SPLIT/*` (ADE20K
      with `annotations`), also with the usual other names of these folders,
    - `SPLIT/*` with `SPLITannot/*` (the SegNet tutorial's CamVid) or `SPLIT_masks/*` (Carvana),
    - `JPEGImages`, `SegmentationClass` and `ImageSets/Segmentation/SPLIT.txt` (Pascal VOC),
    - `leftImg8bit/SPLIT/CITY/*` with `gtFine/SPLIT/CITY/*_labelTrainIds.png` or `*_labelIds.png` (Cityscapes).

    Where each class has masks of its own, they lie in `masks/CLASS/NAME.png`, or in `masks/NAME/CLASS.png`.

    Raises:
        DataError: No such folder, none of these layouts, more than one of them, or no picture with a mask.
    """
    if not data.is_dir():
        raise DataError(f"{data} is {'a file' if data.exists() else 'not there'}; expected a folder with {_SHOWN}")
    found = [layout for finder in _FINDERS if (layout := finder(data)) is not None]
    if not found:
        inside = ", ".join(subfolders(data)[:8]) or "no folders"
        raise DataError(f"{data}: no pictures with masks were recognised (it has {inside}); expected {_SHOWN}")
    if len(found) > 1:
        names = " and ".join(layout.name for layout in found)
        raise DataError(f"{data} can be read as {names}; keep one of them")
    if not any(found[0].splits.values()):
        reason = f", such as {found[0].unmatched[0][1]}: {found[0].unmatched[0][2]}" if found[0].unmatched else ""
        raise DataError(f"{data}: no picture has a mask{reason}; masks are found by the names of their pictures")
    return found[0]


def _split_folders(data: Path) -> Layout | None:
    """SPLIT/images with SPLIT/masks."""
    folders = {}
    for name in subfolders(data):
        if name.lower() in _SPLITS and (pair := _pair_of_folders(data / name)) is not None:
            folders[_SPLITS[name.lower()]] = pair
    return _paired("SPLIT/images with SPLIT/masks", folders)


def _flat_folders(data: Path) -> Layout | None:
    """Folders images and masks, with or without splits in them."""
    pair = _pair_of_folders(data)
    if pair is None:
        return None
    pictures, masks = pair
    splits = {name: _SPLITS[name.lower()] for name in subfolders(pictures) if name.lower() in _SPLITS}
    if splits and all((masks / name).is_dir() for name, split in splits.items() if split != "test"):
        folders = {split: (pictures / name, masks / name) for name, split in splits.items() if (masks / name).is_dir()}
        return _paired("images/SPLIT with masks/SPLIT", folders)
    return _paired("images with masks", {"train": pair}, has_splits=False)


def _named_after_splits(data: Path) -> Layout | None:
    """SPLIT with SPLITannot or SPLIT_masks."""
    inside = {name.lower(): name for name in subfolders(data)}
    folders = {}
    for name, split in _SPLITS.items():
        for ending in ("annot", "_masks", "_mask", "_labels"):
            if name in inside and name + ending in inside:
                folders[split] = (data / inside[name], data / inside[name + ending])
    return _paired("SPLIT with SPLITannot or SPLIT_masks", folders)


def _voc(data: Path) -> Layout | None:
    """Pascal VOC, where lists name the pictures of each split."""
    pictures, masks, lists = data / "JPEGImages", data / "SegmentationClass", data / "ImageSets" / "Segmentation"
    if not (pictures.is_dir() and masks.is_dir()):
        return None
    if not lists.is_dir():
        return _paired("JPEGImages with SegmentationClass", {"train": (pictures, masks)}, has_splits=False)
    layout = Layout("Pascal VOC")
    for split in ("train", "val", "test"):
        listed = lists / f"{split}.txt"
        if listed.is_file():
            names = listed.read_text(encoding="utf-8").split()
            files = [pictures / f"{name}.jpg" for name in names]
            layout.splits[split] = _match(split, files, {name: masks / f"{name}.png" for name in names}, layout)
    return layout


def _cityscapes(data: Path) -> Layout | None:
    """Cityscapes: one folder a city, and several files for each mask."""
    pictures, masks = data / "leftImg8bit", data / "gtFine"
    if not (pictures.is_dir() and masks.is_dir()):
        return None
    layout = Layout("Cityscapes")
    for split in ("train", "val"):
        files = find_pictures(pictures / split)[0] if (pictures / split).is_dir() else []
        every = find_pictures(masks / split)[0] if (masks / split).is_dir() else []
        kinds = [[path for path in every if path.stem.endswith(kind)] for kind in ("labelTrainIds", "labelIds")]
        chosen = kinds[0] or kinds[1]
        by_name = {_ENDINGS.sub("", path.stem) + "_leftImg8bit": path for path in chosen}
        layout.splits[split] = _match(split, files, by_name, layout)
    return layout


_FINDERS: tuple[Callable[[Path], Layout | None], ...] = (
    _split_folders,
    _flat_folders,
    _named_after_splits,
    _voc,
    _cityscapes,
)


def _pair_of_folders(folder: Path) -> tuple[Path, Path] | None:
    inside = {name.lower(): name for name in subfolders(folder)}
    pictures = [inside[name] for name in _PICTURE_FOLDERS if name in inside]
    masks = [inside[name] for name in _MASK_FOLDERS if name in inside]
    for names in (pictures, masks):
        if pictures and masks and len(names) > 1:
            raise DataError(f"{folder} has both {names[0]} and {names[1]}; keep one of them")
    return (folder / pictures[0], folder / masks[0]) if pictures and masks else None


def _paired(name: str, folders: Mapping[SplitName, tuple[Path, Path]], *, has_splits: bool = True) -> Layout | None:
    if not folders:
        return None
    layout = Layout(name, has_splits=has_splits)
    for split in ("train", "val", "test"):
        if split in folders:
            _pair(split, *folders[split], layout)
    return layout


def _pair(split: SplitName, pictures: Path, masks: Path, layout: Layout) -> None:
    files, _ = find_pictures(pictures)
    painted, _ = find_pictures(masks)
    by_stem: dict[str, Path] = {}
    for path in files:
        first = by_stem.setdefault(_key(path, pictures), path)
        if first != path:
            layout.unmatched.append((split, path, f"has the name of {first.name}, so that a mask may be either's"))
    files = list(by_stem.values())
    below = [path.relative_to(masks).parts for path in painted]
    keys = {_key(path, masks) for path in painted}
    names = keys | {_ENDINGS.sub("", key) for key in keys}
    if painted and all(len(parts) == 2 for parts in below) and not names & set(by_stem):
        _match_layers(split, by_stem, painted, layout)
        return
    found: dict[str, Path] = {}
    for path in painted:
        key = _key(path, masks)
        stem = key if key in by_stem else _ENDINGS.sub("", key)
        if stem in found:
            layout.unmatched.append((split, path, f"{found[stem].name} is a mask of the same picture"))
        elif stem in by_stem:
            found[stem] = path
        else:
            layout.orphans.append(path)
    layout.splits[split] = _match(split, files, found, layout, root=pictures)


def _match_layers(split: SplitName, by_stem: Mapping[str, Path], painted: Iterable[Path], layout: Layout) -> None:
    """One mask for each class: masks/CLASS/NAME.png, or masks/NAME/CLASS.png."""
    found: dict[tuple[str, str], Path] = {}
    for path in painted:
        stem, parent = _ENDINGS.sub("", path.stem), path.parent.name
        if (stem if stem in by_stem else path.stem) in by_stem:
            found[stem if stem in by_stem else path.stem, parent] = path
        elif parent in by_stem:
            found[parent, path.stem] = path
        else:
            layout.orphans.append(path)
    layers = tuple(sorted({layer for _, layer in found}))
    if layout.layers and layers != layout.layers:
        raise DataError(
            f"the masks of {split} have the classes {', '.join(layers)}, those before it {', '.join(layout.layers)}"
        )
    layout.layers = layers
    samples = []
    for stem, path in by_stem.items():
        if not layers:
            layout.unmatched.append((split, path, "has no mask"))
        elif missing := [layer for layer in layers if (stem, layer) not in found]:
            layout.unmatched.append((split, path, f"has no mask of {', '.join(missing)}"))
        else:
            samples.append(MaskedSample(path, tuple(found[stem, layer] for layer in layers)))
    layout.splits[split] = samples


def _match(
    split: SplitName, files: Iterable[Path], masks: Mapping[str, Path], layout: Layout, *, root: Path | None = None
) -> list[MaskedSample]:
    samples = []
    for path in files:
        mask = masks.get(path.stem if root is None else _key(path, root))
        if mask is None or (root is None and not mask.is_file()):
            layout.unmatched.append((split, path, "has no mask"))
        else:
            samples.append(MaskedSample(path, (mask,)))
    return samples


def _key(path: Path, root: Path) -> str:
    """Path below a folder, without the ending of its kind."""
    return path.relative_to(root).with_suffix("").as_posix()

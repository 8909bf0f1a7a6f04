"""The pictures and masks of a data folder: found, read once, understood, and checked pair by pair."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vggtransfer.data.cores import usable_cores
from vggtransfer.data.duplicates import find_duplicates
from vggtransfer.data.folders import Sample
from vggtransfer.data.masked_transforms import IGNORED
from vggtransfer.data.scan import BadPicture, check_pictures
from vggtransfer.errors import BadImageError, DataError
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.segmentation.known_classes import known_classes
from vggtransfer.segmentation.layouts import Layout, MaskedSample, SplitName, find_masked_pictures
from vggtransfer.segmentation.mask_classes import read_mask_classes
from vggtransfer.segmentation.mask_coding import MaskCoding
from vggtransfer.segmentation.mask_files import MaskSummary, picture_size, summarise_mask
from vggtransfer.segmentation.mask_meaning import TaskOption, find_coding


@dataclass(frozen=True)
class MaskedPictures:
    """Pictures and masks that fit each other.

    Attributes:
        root: The data folder.
        layout: How it is laid out, in words.
        coding: What the masks mean.
        train: For training.
        val: For validation.
        test: Not for training.
        sizes: (height, width) of each picture.
        pixels: For each class, the pixels of it in the masks of each picture that count.
        bad: Files that were left out, with the reasons.
        hashes: SHA-256 of each picture file.
        warnings: What is odd about the data, in plain sentences.
    """

    root: Path
    layout: str
    coding: MaskCoding
    train: tuple[MaskedSample, ...]
    val: tuple[MaskedSample, ...]
    test: tuple[MaskedSample, ...]
    sizes: Mapping[Path, tuple[int, int]]
    pixels: Mapping[Path, tuple[int, ...]]
    bad: tuple[BadPicture, ...]
    hashes: Mapping[Path, str]
    warnings: tuple[str, ...]

    def rows(self) -> list[dict[str, str]]:
        """One row a picture: paths relative to the data folder, split and content hashes."""
        return [
            {
                "path": sample.path.relative_to(self.root).as_posix(),
                "masks": " ".join(path.relative_to(self.root).as_posix() for path in sample.masks),
                "split": split,
                "sha256": self.hashes[sample.path],
            }
            for split, samples in (("train", self.train), ("val", self.val), ("test", self.test))
            for sample in samples
        ]


def load_pictures(
    data: Path,
    *,
    classes: str | int | None,
    ignore: str | int | None,
    task: TaskOption,
    val_fraction: float,
    seed: int,
    on_bad_image: Literal["skip", "stop"],
    coding: MaskCoding | None = None,
    splits: Sequence[SplitName] = ("train", "val"),
    progress: bool = False,
) -> MaskedPictures:
    """Finds, reads and checks the pictures and masks of a folder.

    Every picture and every mask is decoded once, so that no bad one can surprise anybody later. A pair does not fit,
    and is left out and listed, if the mask is missing, cannot be read, has another size, or values that no class has.

    Args:
        data: See `vggtransfer.segmentation.layouts.find_masked_pictures`.
        classes: See `vggtransfer.segmentation.mask_classes.read_mask_classes`; default: those of a known data set, or
            what the masks show.
        ignore: The same.
        task: What masks are to be taken for.
        val_fraction: Part of the pictures set aside for validation where the folder has no split for it.
        seed: Chooses them.
        on_bad_image: `skip` lists what does not fit, `stop` makes the first one an error.
        coding: What masks mean, where a model knows that already.
        splits: What is looked at. Without "val" among them, nothing is set aside.
        progress: Show on standard error how far it is.

    Raises:
        DataError: No usable layout, masks that contradict each other, nothing left of a split, or a pair that does not
            fit where those shall stop.
        OptionError: Options that do not fit the data.
    """
    said = read_mask_classes(classes, ignore)
    layout = find_masked_pictures(data)
    if said is None and ignore is None:
        said = known_classes(layout)
    bad = [BadPicture(path, reason) for split, path, reason in layout.unmatched if split in splits]
    if bad and on_bad_image == "stop":
        raise bad[0].stop()
    every = {split: found for split, found in layout.splits.items() if split in splits}
    samples = [sample for found in every.values() for sample in found]
    if not samples:
        raise DataError(f"{data} has no pictures with masks for {' or '.join(splits)} (read as {layout.name})")
    summaries = _summaries(samples, bad, shown=progress)
    readable = [summaries[path] for sample in samples for path in sample.masks if path in summaries]
    if not readable:
        raise DataError(f"{data}: no mask can be read, the first: {bad[-1].path}: {bad[-1].reason}")
    if coding is not None and layout.layers != (coding.names if coding.task == "multilabel" else ()):
        have = f"masks of {', '.join(layout.layers)} each" if layout.layers else "one mask a picture"
        raise DataError(f"{data} has {have}; the model paints {coding.task} masks of {', '.join(coding.names)}")
    if coding is None:
        coding = find_coding(readable, classes=said, ignore=ignore, task=task, layers=layout.layers)
    check = check_pictures([Sample(sample.path, 0) for sample in samples], on_bad_image=on_bad_image, progress=progress)
    bad += check.bad
    sizes, pixels = {}, {}
    for sample in samples:
        if sample.path not in check.hashes or any(path not in summaries for path in sample.masks):
            continue
        found = [summaries[path] for path in sample.masks]
        size = picture_size(sample.path)
        if (misfit := _misfit(size, found, coding)) is not None:
            bad.append(misfit)
        else:
            sizes[sample.path], pixels[sample.path] = size, _pixels(found, coding)
    if bad and on_bad_image == "stop":
        raise bad[0].stop()
    kept = {split: tuple(one for one in found if one.path in sizes) for split, found in every.items()}
    for split, left in kept.items():
        if not left and every[split]:
            raise DataError(f"{data}: no pair of {split} is left, the first: {bad[0].path}: {bad[0].reason}")
    if "train" in splits:
        _check_variety(kept.get("train", ()), pixels, coding)
    if "val" in splits and not kept.get("val"):
        kept["train"], kept["val"] = _set_aside(kept.get("train", ()), data, val_fraction, seed)
    return MaskedPictures(
        root=data,
        layout=layout.name,
        coding=coding,
        train=kept.get("train", ()),
        val=kept.get("val", ()),
        test=kept.get("test", ()),
        sizes=sizes,
        pixels=pixels,
        bad=tuple(bad),
        hashes=check.hashes,
        warnings=(*_warnings(layout, coding, kept, pixels, bad), *_repeated(kept, check.hashes)),
    )


def _summaries(samples: Iterable[MaskedSample], bad: list[BadPicture], *, shown: bool) -> dict[Path, MaskSummary]:
    """Reads all masks, in threads; adds those that cannot be read to `bad`."""

    def summary(path: Path) -> MaskSummary | BadImageError:
        try:
            return summarise_mask(path)
        except BadImageError as error:
            return error

    paths = [path for sample in samples for path in sample.masks]
    found: dict[Path, MaskSummary] = {}
    with (
        ThreadPoolExecutor(min(usable_cores(), 16)) as pool,
        ProgressBar("reading masks", steps=len(paths), shown=shown) as bar,
    ):
        for path, one in zip(paths, pool.map(summary, paths), strict=True):
            bar.advance()
            if isinstance(one, MaskSummary):
                found[path] = one
            else:
                bad.append(BadPicture.of(path, one))
    return found


def _misfit(size: tuple[int, int], masks: Sequence[MaskSummary], coding: MaskCoding) -> BadPicture | None:
    for mask in masks:
        if mask.size != size:
            (height, width), (rows, columns) = size, mask.size
            return BadPicture(mask.path, f"is {columns} x {rows}, its picture {width} x {height}")
        if unknown := coding.unknown(mask):
            return BadPicture(mask.path, coding.complaint(unknown, mask))
    return None


def _pixels(masks: Sequence[MaskSummary], coding: MaskCoding) -> tuple[int, ...]:
    """Pixels of each class; of those with a mask of their own, and of binary ones, of the foreground."""
    counts = [0] * (len(coding.names) + (coding.task == "binary"))
    for place, mask in enumerate(masks):
        for value, pixels in mask.counts.items():
            number = coding.number(value, mask)
            if number is None or number == IGNORED:
                continue
            if coding.task == "multilabel":
                counts[place] += pixels * number
            else:
                counts[number] += pixels
    return tuple(counts[1:] if coding.task == "binary" else counts)


def _check_variety(samples: Sequence[MaskedSample], pixels: Mapping[Path, tuple[int, ...]], coding: MaskCoding) -> None:
    """Refuses masks from which nothing can be learnt, which most often are masks that were misunderstood."""
    totals = [sum(counts) for counts in zip(*(pixels[sample.path] for sample in samples), strict=True)]
    shown = [name for name, total in zip(coding.names, totals, strict=True) if total]
    if samples and len(shown) < (2 if coding.task == "multiclass" else 1):
        raise DataError(
            f"all masks show {shown[0] if shown else 'nothing'} alone, such as {samples[0].masks[0]}; say what their "
            "values mean with --classes, and with --ignore which do not count"
        )


def _set_aside(
    samples: Sequence[MaskedSample], root: Path, fraction: float, seed: int
) -> tuple[tuple[MaskedSample, ...], tuple[MaskedSample, ...]]:
    """Sets a part of the pictures aside; which ones depends on the seed and their paths alone."""
    if len(samples) < 2:
        raise DataError(f"{root} has one picture with a mask only, so none can be set aside for validation; add some")

    def draw(sample: MaskedSample) -> bytes:
        below = sample.path.relative_to(root).as_posix()
        return hashlib.sha256(f"{seed}/{below}".encode("utf-8", "surrogateescape")).digest()

    count = min(max(1, round(fraction * len(samples))), len(samples) - 1)
    aside = {sample.path for sample in sorted(samples, key=draw)[:count]}
    return (
        tuple(sample for sample in samples if sample.path not in aside),
        tuple(sample for sample in samples if sample.path in aside),
    )


def _warnings(
    layout: Layout,
    coding: MaskCoding,
    kept: Mapping[SplitName, Sequence[MaskedSample]],
    pixels: Mapping[Path, tuple[int, ...]],
    bad: Sequence[BadPicture],
) -> Iterable[str]:
    if bad:
        files = "file" if len(bad) == 1 else "files"
        yield f"{len(bad)} {files} left out, such as {bad[0].path}: {bad[0].reason}."
    if layout.orphans:
        yield f"{len(layout.orphans)} masks have no picture, such as {layout.orphans[0]}."
    for split, samples in kept.items():
        absent = [
            name
            for number, name in enumerate(coding.names)
            if samples and not any(pixels[sample.path][number] for sample in samples)
        ]
        if absent:
            shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            yield f"No mask of {split} shows {shown}."


def _repeated(kept: Mapping[SplitName, Sequence[MaskedSample]], hashes: Mapping[Path, str]) -> tuple[str, ...]:
    """What is said of the same picture in two splits."""
    splits: dict[str, list[Sample]] = {
        split: [Sample(sample.path, 0) for sample in samples] for split, samples in kept.items()
    }
    return find_duplicates(splits, hashes, ("",))

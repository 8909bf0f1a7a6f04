"""Finds out what masks mean from what is in them and what was said of them; contradictions are errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vggtransfer.data.masked_transforms import IGNORED
from vggtransfer.errors import DataError, OptionError
from vggtransfer.segmentation.mask_classes import Colour, MaskClass, MaskClasses, drawing_colours, ignored_things
from vggtransfer.segmentation.mask_coding import LOSSY, GreyColours, MaskCoding, hexadecimal, spans, unpacked
from vggtransfer.segmentation.mask_files import MaskSummary
from vggtransfer.segmentation.task_names import SegmentationTask

TaskOption = Literal["auto", "multiclass", "binary", "multilabel"]

_FULL = 255  # foreground where masks are black and white, else what does not count
_REMEDY = "give --classes classes.yaml with names and values or colours"


def find_coding(
    summaries: Sequence[MaskSummary],
    *,
    classes: MaskClasses | None,
    ignore: str | int | None,
    task: TaskOption,
    layers: Sequence[str],
) -> MaskCoding:
    """Decides what masks mean.

    Without `classes`: masks of 0 and 255, or 0 and 1, are binary; others have the classes 0, 1, 2, ... up to their
    highest value, and 255 does not count. With them, each pixel's value or colour must be one of theirs; the colours of
    a palette count where they are the classes'.

    Args:
        summaries: Of all masks.
        classes: What `--classes` says.
        ignore: What `--ignore` says.
        task: What masks are to be taken for.
        layers: Names of the classes that have masks of their own.

    Raises:
        DataError: Masks that contradict each other or cannot be understood.
        OptionError: Options that do not fit the masks.
    """
    if task != "auto" and bool(layers) != (task == "multilabel"):
        have = "one mask for each class" if layers else "one mask for all classes"
        raise OptionError(f"--task {task} does not fit: there is {have} here; leave it out")
    if classes is None and any(one.in_colour for one in summaries):
        raise _unknown_colours([one for one in summaries if one.in_colour])
    if classes is not None and not classes.has_colours and (coloured := [one for one in summaries if one.in_colour]):
        raise _unknown_colours(coloured)
    by_palette = classes is not None and classes.has_colours and any(_palette_fits(one, classes) for one in summaries)
    if not by_palette:
        _compare_palettes(summaries)
    grey_colours = _grey_colours(summaries, classes)
    plain = [
        one
        for one in summaries
        if not one.in_colour
        and not (by_palette and one.palette)
        and not (not one.palette and (grey_colours == "all" or (grey_colours == "rgb" and one.rgb)))
    ]
    given_ignored = ignore is not None or (classes is not None and classes.given_ignored)
    given_values = classes is not None and classes.given_values
    seen = set().union(*(one.counts for one in plain)) if plain else set()
    few = classes is not None and len(classes.classes) <= 2
    # A single odd file among them must not change what 255 means in all others; it is left out by itself.
    two_valued = [set(one.counts) for one in plain if set(one.counts) <= {0, 1, _FULL}]
    black_and_white = (
        not (given_ignored or given_values)
        and (few or seen <= {0, _FULL})
        and any(_FULL in values for values in two_valued)
        and not any(1 in values for values in two_valued)
    )
    if (few or seen <= {0, 1, _FULL}) and not (given_ignored or given_values):
        _refuse_mixed(plain)
    if layers:
        return _layered(layers, classes, seen, ignore, black_and_white=black_and_white)
    if classes is None:
        classes = _found_classes(plain, seen, ignore, black_and_white=black_and_white)
    elif black_and_white and len(classes.classes) <= 2:
        values = ((_FULL,),) if len(classes.classes) == 1 else ((0,), (_FULL,))
        replaced = [MaskClass(one.name, v, one.colours) for one, v in zip(classes.classes, values, strict=True)]
        classes = MaskClasses(tuple(replaced), (), classes.ignored_colours)
    kind: SegmentationTask = task if task != "auto" else "binary" if len(classes.classes) <= 2 else "multiclass"
    if kind == "binary":
        return _binary(classes, by_palette=by_palette, grey_colours=grey_colours)
    if len(classes.classes) < 2:
        raise OptionError("--task multiclass needs two classes at least; --task binary tells one from everything else")
    return MaskCoding(
        task="multiclass",
        names=classes.names,
        values=tuple(one.values[0] for one in classes.classes),
        colours=drawing_colours(classes),
        codes=_codes(classes, range(len(classes.classes))),
        colour_codes=_colour_codes(classes, range(len(classes.classes))),
        by_palette=by_palette,
        grey_colours=grey_colours,
    )


def _grey_colours(summaries: Sequence[MaskSummary], classes: MaskClasses | None) -> GreyColours:
    """Whether masks in shades of grey belong to ones in colour, see `MaskCoding`."""
    if classes is None or not classes.has_colours or not any(one.in_colour for one in summaries):
        return "none"
    # Programs that make files smaller store a grey picture with one channel.
    return "rgb" if classes.given_values else "all"


def _found_classes(
    plain: Sequence[MaskSummary], seen: set[int], ignore: str | int | None, *, black_and_white: bool
) -> MaskClasses:
    """The classes of masks of which nothing was said."""
    if black_and_white:
        return MaskClasses((MaskClass("background", (0,)), MaskClass("foreground", (_FULL,))), ignored_values=())
    ignored, colours = ((_FULL,), ()) if ignore is None else ignored_things(ignore)
    left = sorted(seen - set(ignored))
    first = 1 if 0 in ignored else 0
    lossy = next((one for one in plain if one.kind in LOSSY or one.smoothed), None)
    if lossy is not None and left != [0, 1]:
        raise DataError(
            f"{lossy.path} is a {lossy.kind} with {len(lossy.counts)} different values: such files mix the values of "
            "neighbouring pixels; save masks as PNG"
        )
    if left == [0, 1]:
        names = ["background", "foreground"]
    elif len(left) > 1 and left == list(range(first, first + len(left))):
        names = [f"class {value}" for value in left]
    else:
        highest = max(plain, key=lambda one: max(set(one.counts) - set(ignored), default=-1))
        raise DataError(
            f"the masks have the values {spans(left) or 'that do not count'}, which are not all the numbers of classes "
            f"from {first} on ({highest.path} has the highest); {_REMEDY}, or --classes NUMBER"
        )
    return MaskClasses(
        tuple(MaskClass(name, (value,)) for name, value in zip(names, left, strict=True)), ignored, colours
    )


def _binary(classes: MaskClasses, *, by_palette: bool, grey_colours: GreyColours) -> MaskCoding:
    if len(classes.classes) > 2:
        raise OptionError(
            f"--task binary is not possible with {len(classes.classes)} classes; give one, or background and foreground"
        )
    if len(classes.classes) == 1:
        (foreground,) = classes.classes
        values = foreground.values if classes.given_values or foreground.values != (0,) else (1,)
        foreground = MaskClass(foreground.name, values, foreground.colours)
        background = MaskClass("background", (0,), ((0, 0, 0),) if foreground.colours else ())
    else:
        background, foreground = classes.classes
    both = MaskClasses((background, foreground), classes.ignored_values, classes.ignored_colours)
    return MaskCoding(
        task="binary",
        names=(foreground.name,),
        values=(background.values[0], foreground.values[0]),
        colours=(foreground.colours[0] if foreground.colours else (230, 40, 40),),
        codes=_codes(both, (0, 1)),
        colour_codes=_colour_codes(both, (0, 1)),
        by_palette=by_palette,
        grey_colours=grey_colours,
    )


def _layered(
    layers: Sequence[str],
    classes: MaskClasses | None,
    seen: set[int],
    ignore: str | int | None,
    *,
    black_and_white: bool,
) -> MaskCoding:
    if classes is not None and sorted(classes.names) != sorted(layers):
        raise OptionError(
            f"--classes names {', '.join(classes.names)}, but there are masks of {', '.join(layers)}; make them agree"
        )
    full = _FULL if black_and_white else 1
    ignored = () if black_and_white else (_FULL,) if ignore is None else ignored_things(ignore)[0]
    if strange := sorted(seen - {0, full, *ignored}):
        raise DataError(
            f"masks of one class each have the values {spans(strange)}; they must be 0 and 1, or 0 and 255, everywhere"
        )
    named = {one.name: one for one in classes.classes} if classes is not None else {}
    every = MaskClasses(tuple(named.get(name, MaskClass(name, (full,))) for name in layers))
    return MaskCoding(
        task="multilabel",
        names=tuple(layers),
        values=(0, full),
        colours=drawing_colours(every),
        codes={0: 0, full: 1, **dict.fromkeys(ignored, IGNORED)},
        colour_codes={},
    )


def _codes(classes: MaskClasses, numbers: Sequence[int]) -> dict[int, int]:
    found = dict.fromkeys(classes.ignored_values, IGNORED)
    of_classes = {value: number for one, number in zip(classes.classes, numbers, strict=True) for value in one.values}
    if classes.given_ignored and (twice := sorted(set(found) & set(of_classes))) and classes.given_values:
        raise OptionError(f"the value {twice[0]} is both a class's and ignored; take it out of --classes or --ignore")
    return {**of_classes, **found} if classes.given_ignored else {**found, **of_classes}


def _colour_codes(classes: MaskClasses, numbers: Sequence[int]) -> dict[Colour, int]:
    of_classes = {
        colour: number for one, number in zip(classes.classes, numbers, strict=True) for colour in one.colours
    }
    return {**of_classes, **dict.fromkeys(classes.ignored_colours, IGNORED)}


def _palette_fits(summary: MaskSummary, classes: MaskClasses) -> bool:
    known = {colour for one in classes.classes for colour in one.colours} | set(classes.ignored_colours)
    return bool(summary.palette) and set(summary.palette.values()) <= known


def _compare_palettes(summaries: Sequence[MaskSummary]) -> None:
    """Masks by value, whose palettes give the same value other colours, were made with other lists of classes."""
    first: dict[int, tuple[Colour, Path]] = {}
    for summary in summaries:
        for value, colour in summary.palette.items():
            known, path = first.setdefault(value, (colour, summary.path))
            if known != colour:
                raise DataError(
                    f"{path} paints the value {value} in {hexadecimal(known)}, {summary.path} in "
                    f"{hexadecimal(colour)}: their palettes are in different orders; "
                    f"{_REMEDY} if the colours count, or save them without"
                )


def _refuse_mixed(plain: Sequence[MaskSummary]) -> None:
    """In some files 255 would be the foreground, in others what does not count."""
    sound = [one for one in plain if set(one.counts) <= {0, 1, _FULL}]
    ones = next((one for one in sound if 1 in one.counts), None)
    full = next((one for one in sound if _FULL in one.counts), None)
    if ones is None or full is None or any({1, _FULL} <= set(one.counts) for one in sound):
        return
    raise DataError(
        f"{ones.path} has the values 0 and 1, {full.path} 0 and 255; make all masks alike, or give --ignore 255 if 255 "
        "does not count"
    )


def _unknown_colours(coloured: Sequence[MaskSummary]) -> DataError:
    smoothed = next((one for one in coloured if one.smoothed or one.kind in LOSSY), None)
    if smoothed is not None:
        return DataError(
            f"{smoothed.path} has hundreds of colours: it is a photograph, or a mask that was saved as "
            f"{smoothed.kind} or resized smoothly; save masks as PNG, without smoothing"
        )
    counts: Counter[int] = Counter()
    for one in coloured:
        counts.update(one.counts)
    shown = ", ".join(hexadecimal(unpacked(value)) for value, _ in counts.most_common(12))
    return DataError(
        f"{coloured[0].path} is in colour, and nobody said which colour is which class; {_REMEDY} "
        f"(found: {shown}{' ...' if len(counts) > 12 else ''})"
    )

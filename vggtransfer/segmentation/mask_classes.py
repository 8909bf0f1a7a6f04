"""The classes that masks show: names, values, colours; from a YAML file, from options, or from a model."""

from __future__ import annotations

import colorsys
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vggtransfer.errors import OptionError
from vggtransfer.recipe_files import read_yaml

Colour: TypeAlias = tuple[int, int, int]
"""RGB, 0 to 255."""

MOST_CLASSES = 254
_EXAMPLE = "'- {name: road, colour: [128, 64, 128]}' or '- {name: road, value: 7}' or '- road'"


@dataclass(frozen=True)
class MaskClass:
    """A class, and what of a mask is of it.

    Attributes:
        name: What it is called.
        values: Values of masks with one channel; the first is the one that predictions are written with.
        colours: The same of colour masks; the first is the one it is drawn in.
    """

    name: str
    values: tuple[int, ...]
    colours: tuple[Colour, ...] = ()


@dataclass(frozen=True)
class MaskClasses:
    """All classes, and what does not count.

    Attributes:
        classes: The class of a pixel is a position in here.
        ignored_values: Values of pixels that do not count.
        ignored_colours: Colours of them.
        given_values: Whether somebody said which values the classes have; otherwise they are their positions.
        given_ignored: Whether somebody said what does not count; otherwise it is the value 255.
    """

    classes: tuple[MaskClass, ...]
    ignored_values: tuple[int, ...] = (255,)
    ignored_colours: tuple[Colour, ...] = ()
    given_values: bool = False
    given_ignored: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.classes)

    @property
    def has_colours(self) -> bool:
        return all(one.colours for one in self.classes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as model files hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MaskClasses:
        """Reads what `as_dict` returned, also from JSON."""
        return cls(
            classes=tuple(
                MaskClass(one["name"], tuple(one["values"]), tuple(_triple(colour) for colour in one["colours"]))
                for one in content["classes"]
            ),
            ignored_values=tuple(content["ignored_values"]),
            ignored_colours=tuple(_triple(colour) for colour in content["ignored_colours"]),
            given_values=content["given_values"],
            given_ignored=content["given_ignored"],
        )


def numbered_classes(names: Sequence[str], **ignored: Any) -> MaskClasses:
    """Classes whose values are their positions."""
    return MaskClasses(tuple(MaskClass(name, (value,)) for value, name in enumerate(names)), **ignored)


def read_mask_classes(option: str | int | None, ignore: str | int | None) -> MaskClasses | None:
    """Understands `--classes` and `--ignore`.

    A file is a list of classes, or has it under `classes`, and what does not count under `ignore`:

        classes:
        - sky                                    # the value is the position in the list: 0
        - {name: road, value: 7}                 # or `values: [7, 8]`
        - {name: car, values: [26, 27]}          # or, of all classes, `colour: "#00008e"` or `colours: [...]`
        ignore: [255, "#000000"]

    Colours are those of colour masks and of palettes; the first of each class is also what it is drawn in.

    Args:
        option: A YAML file, a comma list of names in the order of their values, or a number of classes.
        ignore: Comma list of values, or colours such as `#000000`, that do not count; `none` for no such.

    Returns:
        None if nothing is said about the classes. `ignore` wins over the file.

    Raises:
        OptionError: Something that cannot be read, or says two things at once.
    """
    if option is None:
        return None
    text = str(option).strip()
    if text.isdecimal():
        found = numbered_classes([f"class {number}" for number in range(int(text))])
    elif text.lower().endswith((".yaml", ".yml")) or os.path.isfile(os.path.expanduser(text)):  # noqa: PTH111, PTH113
        # Path.is_file fails for a list of names that is too long for a path.
        found = _from_file(Path(text).expanduser())
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
        found = numbered_classes(names)
    _check(found, option)
    if ignore is None:
        return found
    values, colours = ignored_things(ignore)
    return MaskClasses(found.classes, values, colours, given_values=found.given_values, given_ignored=True)


def ignored_things(ignore: str | int) -> tuple[tuple[int, ...], tuple[Colour, ...]]:
    """Reads `--ignore`: values, and colours such as `#000000`.

    Raises:
        OptionError: Neither.
    """
    values, colours = [], []
    parts = [part.strip() for part in str(ignore).split(",")]
    for part in [] if parts == ["none"] else parts:
        if part.isdecimal() and int(part) < 2**16:
            values.append(int(part))
        elif re.fullmatch(r"#[0-9a-fA-F]{6}", part):
            colours.append(_colour(part, "--ignore"))
        else:
            raise OptionError(
                f"--ignore {ignore} is not possible: use values such as 255, colours such as #000000, or none"
            )
    return tuple(values), tuple(colours)


def drawing_colours(classes: MaskClasses) -> tuple[Colour, ...]:
    """A colour for each class: its own, or hues by the golden ratio, so that neighbours in the list differ most."""
    return tuple(
        one.colours[0] if one.colours else _hue(number * 0.618034 % 1, light=(1.0, 0.75, 0.9)[number % 3])
        for number, one in enumerate(classes.classes)
    )


def _hue(hue: float, *, light: float) -> Colour:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, light))
    return red, green, blue


def _from_file(path: Path) -> MaskClasses:
    content = read_yaml(path)
    if isinstance(content, list):
        content = {"classes": content}
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list) or not content["classes"]:
        raise OptionError(f"{path}: must hold 'classes:', a list of classes such as {_EXAMPLE}, and perhaps 'ignore:'")
    if unknown := set(content) - {"classes", "ignore"}:
        raise OptionError(f"{path}: unknown key '{min(map(str, unknown))}'; it may have 'classes' and 'ignore'")
    classes = [_entry(entry, number, path) for number, entry in enumerate(content["classes"])]
    given = any(isinstance(entry, dict) and ("value" in entry or "values" in entry) for entry in content["classes"])
    if "ignore" not in content:
        return MaskClasses(tuple(classes), given_values=given)
    ignored = content["ignore"] if isinstance(content["ignore"], list) else [content["ignore"]]
    values = tuple(one for one in ignored if isinstance(one, int))
    if strange := [one for one in values if not 0 <= one < 2**16]:
        raise OptionError(f"{path}: ignore: values must be whole numbers from 0 to 65,535, not {strange[0]}")
    colours = tuple(_colour(one, f"{path}: ignore") for one in ignored if not isinstance(one, int) and one is not None)
    return MaskClasses(tuple(classes), values, colours, given_values=given, given_ignored=True)


def _entry(entry: object, number: int, path: Path) -> MaskClass:
    if isinstance(entry, str | int):
        return MaskClass(str(entry), (number,))
    place = f"{path}: class {number + 1}"
    if not isinstance(entry, dict) or "name" not in entry:
        raise OptionError(f"{place}: must be like {_EXAMPLE}, not {entry!r}")
    if unknown := set(entry) - {"name", "value", "values", "colour", "colours", "color", "colors"}:
        raise OptionError(f"{place}: unknown key '{min(map(str, unknown))}'; it may have name, value(s) and colour(s)")
    values = entry.get("values", [entry["value"]] if "value" in entry else [number])
    if not isinstance(values, list) or not all(isinstance(one, int) and 0 <= one < 2**16 for one in values):
        raise OptionError(f"{place}: values must be whole numbers from 0 to 65,535, not {values!r}")
    one_colour = next((entry[key] for key in ("colour", "color") if key in entry), None)
    several = next((entry[key] for key in ("colours", "colors") if key in entry), None)
    colours = several if several is not None else [] if one_colour is None else [one_colour]
    if not isinstance(colours, list):
        raise OptionError(f"{place}: colours must be a list of colours, not {colours!r}")
    return MaskClass(str(entry["name"]), tuple(values), tuple(_colour(one, place) for one in colours))


def _colour(value: object, place: str) -> Colour:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, list) and len(value) == 3 and all(isinstance(one, int) and 0 <= one <= 255 for one in value):
        return _triple(value)
    raise OptionError(f"{place}: a colour is [red, green, blue] from 0 to 255, or '#ff8800', not {value!r}")


def _triple(colour: Sequence[int]) -> Colour:
    red, green, blue = colour
    return red, green, blue


def _check(found: MaskClasses, option: str | int) -> None:
    if not 1 <= len(found.classes) <= MOST_CLASSES:
        raise OptionError(f"--classes {option}: there must be 1 to {MOST_CLASSES} classes, not {len(found.classes)}")
    kinds: tuple[tuple[str, list[Any]], ...] = (
        ("name", list(found.names)),
        ("value", [value for one in found.classes for value in one.values]),
        ("colour", [colour for one in found.classes for colour in one.colours]),
    )
    for what, things in kinds:
        if twice := [thing for thing in things if things.count(thing) > 1]:
            raise OptionError(f"--classes {option}: two classes have the {what} {twice[0]}")
    coloured = [one.name for one in found.classes if one.colours]
    if 0 < len(coloured) < len(found.classes):
        bare = next(one.name for one in found.classes if not one.colours)
        raise OptionError(
            f"--classes {option}: {coloured[0]} has a colour, {bare} has none; give all of them one, or none"
        )

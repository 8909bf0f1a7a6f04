"""What the values and colours of masks mean: one class number a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.masked_transforms import IGNORED
from vggtransfer.segmentation.mask_classes import Colour
from vggtransfer.segmentation.mask_files import MaskSummary, RawMask
from vggtransfer.segmentation.task_names import SegmentationTask

GreyColours = Literal["none", "rgb", "all"]

UNKNOWN = 254
"""Stands for pixels whose value or colour nobody knows; never leaves this file."""


@dataclass(frozen=True)
class MaskCoding:
    """The meaning of a data set's masks, as model files hold it.

    Attributes:
        task: What masks say.
        names: Of the classes that are scored: all, or for `"binary"` the one that is looked for.
        values: What predictions are written with: one value a class; for `"binary"`, background and foreground.
        colours: What each class is drawn in.
        codes: Class number, or `IGNORED`, of each value of masks with one channel. For `"binary"` and `"multilabel"`,
            0 and 1.
        colour_codes: The same of each colour.
        by_palette: Whether the colours of a palette count, and not the values that stand for them.
        grey_colours: Which masks without a palette mean colours though they show shades of grey only: none, those that
            have red, green and blue, or all. A mask of a black and a white class is one of colours if others are.
    """

    task: SegmentationTask
    names: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[Colour, ...]
    codes: Mapping[int, int]
    colour_codes: Mapping[Colour, int]
    by_palette: bool = False
    grey_colours: GreyColours = "none"

    def encode(self, raw: RawMask) -> tuple[NDArray[np.uint8], list[int]]:
        """Returns the class numbers uint8 [height, width] of a mask, and the values in it that have no meaning."""
        values = raw.values
        if self._by_colour(raw):
            if not raw.in_colour:
                values = np.where(values < 256, values.astype(np.int32) * _GREY, -1)
            known = np.array(sorted(_packed(colour) for colour in self.colour_codes), np.int32)
            numbers = np.array([self.colour_codes[unpacked(code)] for code in known.tolist()], np.uint8)
            place = np.searchsorted(known, values).clip(0, max(0, len(known) - 1))
            found = np.full(values.shape, UNKNOWN, np.uint8)
            if len(known):
                hit = known[place] == values
                found[hit] = numbers[place[hit]]
        else:
            table = np.full(2**16, UNKNOWN, np.uint8)
            for value in raw.palette if self.by_palette and raw.palette else self.codes:
                number = self.number(value, raw)
                table[value] = UNKNOWN if number is None else number
            if values.dtype == np.uint8:
                found = table[values]
            else:
                found = table[values.clip(0, 2**16 - 1)]
                found[(values < 0) | (values >= 2**16)] = UNKNOWN
        unknown = np.unique(raw.values[found == UNKNOWN])[:5].tolist() if (found == UNKNOWN).any() else []
        return found, unknown

    def number(self, value: int, mask: MaskSummary | RawMask) -> int | None:
        """The class number of one value of a mask; None if it has no meaning."""
        if self._by_colour(mask) or (self.by_palette and mask.palette):
            colour = self._colour(value, mask)
            return None if colour is None else self.colour_codes.get(colour)
        return self.codes.get(value)

    def _by_colour(self, mask: MaskSummary | RawMask) -> bool:
        if mask.in_colour or mask.palette:
            return mask.in_colour
        return self.grey_colours == "all" or (self.grey_colours == "rgb" and mask.rgb)

    def _colour(self, value: int, mask: MaskSummary | RawMask) -> Colour | None:
        """What a value of a mask that means colours looks like."""
        if mask.in_colour:
            return unpacked(value)
        if mask.palette:
            return mask.palette.get(value)
        return (value, value, value) if 0 <= value < 256 else None

    def unknown(self, summary: MaskSummary) -> list[int]:
        """The values of a mask that have no meaning, the most frequent first."""
        return [value for value in summary.counts if self.number(value, summary) is None]

    def complaint(self, values: Sequence[int], mask: MaskSummary | RawMask) -> str:
        """Says of the values without a meaning in a mask that they have none."""
        if self._by_colour(mask) or (self.by_palette and mask.palette):
            colours = [self._colour(value, mask) for value in values[:3]]
            shown = ", ".join(hexadecimal(colour) for colour in colours if colour is not None)
            text = f"has the colour {shown}, which is no class's nor ignored"
        else:
            numbers = sorted(value for value, number in self.codes.items() if number != IGNORED)
            text = f"has the value {', '.join(map(str, values[:3]))}, which is no class ({spans(numbers)}) nor ignored"
        hint = f"; it is a {mask.kind}, which mixes neighbouring values: save masks as PNG"
        return text + (hint if mask.kind in LOSSY else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as model files hold them."""
        return {
            "task": self.task,
            "names": self.names,
            "values": self.values,
            "colours": self.colours,
            "codes": [[value, number] for value, number in self.codes.items()],
            "colour_codes": [[colour, number] for colour, number in self.colour_codes.items()],
            "by_palette": self.by_palette,
            "grey_colours": self.grey_colours,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MaskCoding:
        """Reads what `as_dict` returned, also from JSON.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        return cls(
            task=content["task"],
            names=tuple(content["names"]),
            values=tuple(content["values"]),
            colours=tuple(_triple(colour) for colour in content["colours"]),
            codes={int(value): int(number) for value, number in content["codes"]},
            colour_codes={_triple(colour): int(number) for colour, number in content["colour_codes"]},
            by_palette=bool(content["by_palette"]),
            grey_colours=content.get("grey_colours", "none"),
        )


LOSSY = ("JPEG", "WEBP", "AVIF", "MPO")


def hexadecimal(colour: Colour) -> str:
    """Returns `#ff8800`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def spans(numbers: Sequence[int]) -> str:
    """Returns `0 to 10` or `0, 3, 7`."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:12])) + (" ..." if len(numbers) > 12 else "")


def unpacked(value: int) -> Colour:
    """The colour that a pixel of a colour mask stands for."""
    return value >> 16, value >> 8 & 255, value & 255


_GREY = 0x010101  # times a shade: its colour


def _packed(colour: Colour) -> int:
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue


def _triple(colour: Sequence[int]) -> Colour:
    red, green, blue = colour
    return int(red), int(green), int(blue)

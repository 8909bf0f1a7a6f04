"""How large a network sees pictures that keep their shape."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vggtransfer.errors import OptionError


@dataclass(frozen=True)
class SeenSize:
    """The size that pictures are resized to before a network sees them.

    Attributes:
        short_side: In pixels; the other side follows. None: not asked for.
        exact: (height, width) in pixels, whatever the picture's shape. With neither, pictures keep their size.
    """

    short_side: int | None = None
    exact: tuple[int, int] | None = None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Returns the (height, width) at which a picture of this size is seen."""
        if self.exact is not None:
            return self.exact
        if self.short_side is None:
            return height, width
        factor = self.short_side / min(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))


def parse_seen_size(option: str, value: int | str | None) -> SeenSize:
    """Reads `256` (the short side), `480x360` (width x height) or None (as they are).

    Raises:
        OptionError: Anything else.
    """
    if value is None or value == "none":
        return SeenSize()
    text = str(value).strip().lower()
    if text.isdecimal():
        return SeenSize(short_side=_checked(option, value, int(text)))
    match = re.fullmatch(r"(\d+)\s*x\s*(\d+)", text)
    if match is None:
        raise OptionError(
            f"--{option} {value} is not possible: use the short side in pixels (256), WIDTHxHEIGHT (480x360) or none"
        )
    width, height = (_checked(option, value, int(side)) for side in match.groups())
    return SeenSize(exact=(height, width))


def _checked(option: str, value: object, side: int) -> int:
    if not 16 <= side <= 16384:
        raise OptionError(f"--{option} {value} is not possible: a side has 16 to 16,384 pixels")
    return side

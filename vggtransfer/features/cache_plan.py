"""Whether it pays to keep the maps of a frozen part, and where: a model of what training costs with and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheMode = Literal["auto", "off", "memory", "disk"]

_LEAST_GAIN = 1.15  # below, reading maps may cost what they save
_PART_OF_MEMORY = 0.5


@dataclass(frozen=True)
class Work:
    """What one stage of training has to compute.

    Attributes:
        epochs: Epochs of the stage.
        train_pictures: Pictures in each.
        validation_pictures: The same for validation.
        squares: Squares that hold all views of a training picture.
        square_scale: Area of such a square, in pictures as the network sees them.
        frozen_macs: Multiply-accumulates of the frozen part for one picture.
        other_macs: Those of the rest, forward.
        bytes: Size of all maps.
    """

    epochs: int
    train_pictures: int
    validation_pictures: int
    squares: int
    square_scale: float
    frozen_macs: int
    other_macs: int
    bytes: int

    def gain(self, kept: float = 0.0) -> float:
        """How many times the arithmetic of the stage shrinks if a part of all rows, 0 to 1, is there already.

        Backward costs twice as much as forward where something trains. Decoding and augmentation, which are saved as
        well, and reading the maps are not counted.
        """
        train, validation = self.train_pictures, self.validation_pictures
        rest = self.epochs * (3 * train + validation) * self.other_macs
        without = self.epochs * (train + validation) * self.frozen_macs + rest
        filling = (1 - kept) * (train * self.squares * self.square_scale + validation) * self.frozen_macs
        return without / max(1.0, filling + rest)


@dataclass(frozen=True)
class Decision:
    """Where maps are kept, `"off"` for nowhere, and why."""

    where: Literal["off", "memory", "disk"]
    reason: str


def decide(
    mode: CacheMode, work: Work, *, kept: float, free_memory: int, free_disk: int, shared: bool, processes: int
) -> Decision:
    """Chooses where to keep the maps of a stage.

    `"auto"` takes the disk where there is room, because later runs find the maps there, else this process's memory,
    and neither if little would be gained. What was asked for is done if it is possible at all.

    Args:
        mode: What was asked for, other than `"off"`.
        work: Of the stage.
        kept: Part of all maps that is on disk already, 0 to 1.
        free_memory: Bytes.
        free_disk: Bytes that may be added on disk.
        shared: Whether all processes see the same cache folder.
        processes: How many train together; maps in memory are for a single one.
    """
    on_disk = shared and round(work.bytes * (1 - kept)) <= free_disk
    in_memory = work.bytes <= _PART_OF_MEMORY * free_memory and processes == 1
    size = shown_bytes(work.bytes)
    if mode == "auto" and (gain := work.gain(kept)) < _LEAST_GAIN:
        return Decision("off", f"{work.epochs} epochs would take {1 / gain:.0%} of the arithmetic, and maps to read")
    if mode != "memory" and on_disk:
        found = f", {kept:.0%} of them found" if kept else ""
        return Decision("disk", f"{size}{found}: {1 / work.gain(kept):.0%} of the arithmetic of {work.epochs} epochs")
    if mode != "disk" and in_memory:
        return Decision("memory", f"{size}: {1 / work.gain():.0%} of the arithmetic of {work.epochs} epochs")
    limits = []
    if mode != "memory":
        room = f"{shown_bytes(free_disk)} may be added on disk, see --cache-size"
        limits.append(room if shared else "VGGTRANSFER_CACHE is not a folder that all machines share")
    if mode != "disk":
        alone = f"{shown_bytes(free_memory)} of memory are free"
        limits.append(alone if processes == 1 else "memory serves a single process only")
    return Decision("off", f"{size} of maps have no room ({', '.join(limits)})")


def shown_bytes(count: float) -> str:
    """For example `1.6 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

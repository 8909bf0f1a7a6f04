"""Painted masks as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vggtransfer.cache import write_atomically
from vggtransfer.data.resampling import Picture
from vggtransfer.segmentation.mask_coding import MaskCoding
from vggtransfer.segmentation.overlays import overlay
from vggtransfer.segmentation.prediction import PredictedMask
from vggtransfer.segmentation.probabilities import masks

_JPEG_QUALITY = 92


class PaintedFiles:
    """Names and writes the files of `segment_predict`.

    Args:
        out: Folder.
        pictures: All pictures; where two have the same name, the later ones get a number.
        coding: What the masks mean.
        overlays: Whether to write masks over their pictures.
        probabilities: Whether to write the probabilities.
    """

    def __init__(
        self, out: Path, pictures: Sequence[Path], coding: MaskCoding, *, overlays: bool, probabilities: bool
    ) -> None:
        self.out, self.coding, self.overlays, self.probabilities = out, coding, overlays, probabilities
        self.names = dict(zip(pictures, distinct([path.stem for path in pictures]), strict=True))
        self.folders = distinct([folder_name(name) for name in coding.names])

    def write(self, path: Path, picture: Picture, scores: Tensor) -> PredictedMask:
        """Writes what belongs to one picture.

        Args:
            path: Its file.
            picture: uint8 RGB [height, width, 3].
            scores: Probabilities [classes, height, width].

        Raises:
            OSError: The folder cannot be written.
        """
        coding, name = self.coding, self.names[path]
        found = masks(scores[None], coding.task)[0].to(torch.uint8).cpu().numpy()
        if coding.task == "multilabel":
            files = tuple(self.out / "masks" / folder / f"{name}.png" for folder in self.folders)
            for place, layer in zip(files, found, strict=True):
                write_mask(place, layer, coding)
            shares = [float((layer == 1).mean()) for layer in found]
        else:
            files = (self.out / "masks" / f"{name}.png",)
            write_mask(files[0], found, coding)
            numbers = [1] if coding.task == "binary" else range(len(coding.names))
            shares = [float((found == number).mean()) for number in numbers]
        drawn = stored = None
        if self.overlays:
            drawn = self.out / "overlays" / f"{name}.jpg"
            mask = found.transpose(1, 2, 0) if found.ndim == 3 else found
            image = Image.fromarray(overlay(picture, mask, coding.colours, task=coding.task))
            with write_atomically(drawn) as temporary:
                image.save(temporary, "JPEG", quality=_JPEG_QUALITY)
        if self.probabilities:
            stored = self.out / "probabilities" / f"{name}.npy"
            with write_atomically(stored) as temporary, temporary.open("wb") as file:
                np.save(file, scores.to(torch.float16).cpu().numpy())
        return PredictedMask(path, files, drawn, stored, dict(zip(coding.names, shares, strict=True)))


def write_mask(path: Path, mask: NDArray[np.uint8], coding: MaskCoding) -> None:
    """Writes a mask as PNG, atomically, with the values of the training masks.

    Classes get their colours as a palette; masks of values above 255 have 16 bits and none.

    Args:
        path: The file.
        mask: Class numbers uint8 [height, width]; 0 and 1 for `"binary"` and the layers of `"multilabel"`.
        coding: What they mean.

    Raises:
        OSError: The folder cannot be written.
    """
    values = np.array(coding.values, np.uint16 if max(coding.values) > 255 else np.uint8)
    image = Image.fromarray(values[mask])
    if coding.task == "multiclass" and values.dtype == np.uint8:
        palette = np.zeros((256, 3), np.uint8)
        palette[list(coding.values)] = coding.colours
        image.putpalette(palette.tobytes())
    with write_atomically(path) as temporary:
        image.save(temporary, "PNG", optimize=True)


def distinct(names: Sequence[str]) -> list[str]:
    """Gives a number to each name that was there before, whether in capitals or not."""
    found: list[str] = []
    taken: set[str] = set()
    for wanted in names:
        name, number = wanted, 1
        while name.lower() in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name.lower())
        found.append(name)
    return found


def folder_name(class_name: str) -> str:
    """A class's name without what file systems do not allow in names."""
    name = "".join("_" if character in '/\\:*?"<>|' else character for character in class_name)
    return name if name.strip(".") else f"_{name}"  # not the folder itself, nor the one above

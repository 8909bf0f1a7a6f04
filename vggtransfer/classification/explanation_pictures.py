"""The pictures of `vggtransfer explain`: a photograph, its heat map, and what the classifier says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vggtransfer.cache import write_atomically
from vggtransfer.classification.class_maps import class_maps
from vggtransfer.classification.explanation import PictureExplanation
from vggtransfer.classification.model import Task, VGGClassifier
from vggtransfer.classification.prediction import LabelProbability
from vggtransfer.data.decode import decode_image
from vggtransfer.data.resampling import Picture, resize
from vggtransfer.data.scan import BadPicture
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import BadImageError
from vggtransfer.printable import printable
from vggtransfer.report.heat_maps import overlay

_LEAST_SIDE, _LARGEST_SIDE = 256, 640
_MARGIN, _GAP, _FONT = 16, 12, 18
_MOST_BYTES = 255  # of a file name, in nearly all file systems
_MOST_BYTES_OF_A_CLASS = 80
_TEXT, _SOFT = (29, 36, 48), (92, 102, 117)


def write_explanations(
    model: VGGClassifier,
    paths: Sequence[Path],
    probabilities: Tensor,
    folder: Path,
    *,
    layer: str,
    label: int | None,
    alpha: float,
    batch_size: int,
    precision: Precision,
) -> tuple[tuple[PictureExplanation, ...], tuple[BadPicture, ...]]:
    """Writes one PNG file for each picture.

    Args:
        model: On its device.
        paths: Pictures.
        probabilities: float [pictures, classes].
        folder: Where to write; the files keep the names of the pictures, with the layer's behind them, and the class's
            where one was asked about.
        layer: Layer to look at.
        label: Class to ask about; None asks about the predicted one.
        alpha: Opacity of the hottest places.
        batch_size: Pictures per pass.
        precision: See `vggtransfer.encoder.precision.resolve_precision`.

    Returns:
        The rows of the result, and what cannot be read any more.

    Raises:
        OSError: A file cannot be written.
    """
    classes = model.task.classes
    predicted = probabilities.argmax(dim=1)
    asked = predicted if label is None else torch.full_like(predicted, label)
    targets = _targets(paths, folder, layer, None if label is None else _file_name_part(classes[label], label))
    rows: list[PictureExplanation] = []
    gone: list[BadPicture] = []
    for start in range(0, len(paths), batch_size):
        seen: dict[int, Picture] = {}
        for index in range(start, min(start + batch_size, len(paths))):
            try:
                seen[index] = _as_seen(paths[index], model.task)
            except BadImageError as error:
                gone.append(BadPicture.of(paths[index], error))
        if not seen:
            continue
        maps = class_maps(model, list(seen.values()), asked[list(seen)], layer=layer, precision=precision)
        for index, heat in zip(seen, maps, strict=True):
            answers = [
                LabelProbability(classes[place], probabilities[index, place].item())
                for place in (int(predicted[index]), int(asked[index]))
            ]
            row = PictureExplanation(paths[index], answers[0], answers[1], targets[index])
            try:
                photograph = decode_image(row.path, min_side=_LARGEST_SIDE)
            except BadImageError as error:
                gone.append(BadPicture.of(row.path, error))
                continue
            drawn = explanation_picture(photograph, heat, row, task=model.task, layer=layer, alpha=alpha)
            with write_atomically(row.out) as temporary:
                drawn.save(temporary, "PNG")
            rows.append(row)
    for picture in gone:
        print(f"warning: left out {printable(picture.path)}: {printable(picture.reason)}", file=sys.stderr)
    return tuple(rows), tuple(gone)


def seen_square(height: int, width: int, task: Task) -> tuple[int, int, int]:
    """Returns (top, left, side) in pixels of the part of a picture that the network sees.

    It is where `vggtransfer.data.resampling.centre_square` cuts.
    """
    short = min(height, width)
    full = round(task.image_size / task.crop_fraction)
    margin = (full - task.image_size) // 2 * short / full
    side = round(task.image_size * short / full)
    return round((height - short) // 2 + margin), round((width - short) // 2 + margin), side


def explanation_picture(
    photograph: Picture, heat: NDArray[np.float32], row: PictureExplanation, *, task: Task, layer: str, alpha: float
) -> Image.Image:
    """Draws a picture and, to its right, the same with the heat map; above both what was predicted.

    Args:
        photograph: uint8 RGB [height, width, 3].
        heat: [rows, columns] in [0, 1], of the part that the network sees.
        row: What is written above.
        task: Tells the part that the network sees.
        layer: Named above.
        alpha: Opacity of the hottest places.
    """
    height, width = photograph.shape[:2]
    factor = min(_LARGEST_SIDE / max(height, width), max(1.0, _LEAST_SIDE / min(height, width)))
    photograph = resize(photograph, max(1, round(height * factor)), max(1, round(width * factor)))
    height, width = photograph.shape[:2]
    top, left, side = seen_square(height, width, task)
    explained = (0.35 * photograph + 0.65 * 255 * 0.5).astype(np.uint8)
    place = np.s_[top : top + side, left : left + side]
    explained[place] = overlay(np.ascontiguousarray(photograph[place]), heat, alpha=alpha)

    probability = f"  {row.predicted.probability:.1%}"
    about = f"{layer}: what speaks for {printable(row.explained.label)}"
    if row.explained.label != row.predicted.label:
        about += f"  {row.explained.probability:.1%}"
    canvas_width = max(2 * width + _GAP, 2 * _LEAST_SIDE) + 2 * _MARGIN
    head = _MARGIN + round(2.9 * _FONT)
    canvas = Image.new("RGB", (canvas_width, head + height + _MARGIN), "white")
    canvas.paste(Image.fromarray(photograph), (_MARGIN, head))
    canvas.paste(Image.fromarray(explained), (_MARGIN + width + _GAP, head))
    draw = ImageDraw.Draw(canvas)
    room = canvas_width - 2 * _MARGIN
    name_room = room - round(draw.textlength(probability, _font(_FONT)))
    title = _fitting(draw, printable(row.predicted.label), _font(_FONT), name_room) + probability
    draw.text((_MARGIN, _MARGIN - 4), title, _TEXT, _font(_FONT))
    small = _font(_FONT - 5)
    draw.text((_MARGIN, _MARGIN + round(1.35 * _FONT)), _fitting(draw, about, small, room), _SOFT, small)
    return canvas


def _as_seen(path: Path, task: Task) -> Picture:
    transform = evaluation_transform(task.image_size, crop_fraction=task.crop_fraction)
    return transform(decode_image(path, min_side=transform.min_side), key=0)


def _targets(paths: Sequence[Path], folder: Path, layer: str, about: str | None) -> list[Path]:
    """Returns a file for each picture; no two are the same, and none is one of the pictures.

    `about` is the class that was asked about, so that those of one class do not take the place of another's.
    """
    taken = {path.absolute() for path in paths}
    numbers: dict[str, int] = {}  # of the last file for pictures of this name
    targets = []
    for path in paths:
        number = numbers.get(path.stem, 0) + 1
        while True:
            end = f"_{layer}" + (f"_{number}" if number > 1 else "") + (f"_for_{about}" if about else "") + ".png"
            target = folder / (_cut(path.stem, _MOST_BYTES - len(os.fsencode(end))) + end)
            if target.absolute() not in taken:
                break
            number += 1
        numbers[path.stem] = number
        taken.add(target.absolute())
        targets.append(target)
    return targets


def _file_name_part(name: str, label: int) -> str:
    """A class's name without what some file system refuses; where that changes it, its number tells it from others."""
    safe = "".join("-" if letter in '<>:"/\\|?*' or not letter.isprintable() else letter for letter in name)
    safe = _cut(safe, _MOST_BYTES_OF_A_CLASS)
    return safe if safe == name else f"{safe}-{label}"


def _cut(name: str, most: int) -> str:
    """Cuts a name to so many bytes in a file system, between two characters."""
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The one font that is on every machine: it comes with matplotlib.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """Cuts a text that is too long."""
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(f"{text}…", font) > room:
        text = text[:-1]
    return f"{text}…"

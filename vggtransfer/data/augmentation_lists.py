"""Augmentation as plain data: the presets, and the same language read from YAML files and checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from vggtransfer.errors import OptionError, did_you_mean
from vggtransfer.recipe_files import read_yaml

Entry: TypeAlias = str | Mapping[str, Any]
"""One line of an augmentation list: a transform's name, or `{name: {argument: value, ...}}`."""

Preset = Literal["none", "mirror", "crops", "shift", "cutout", "wide", "light", "standard", "strong"]
PRESET_NAMES: tuple[Preset, ...] = get_args(Preset)

FIXED_VIEWS: tuple[Preset, ...] = ("none", "mirror", "crops")
"""Presets with a fixed number of views of each picture."""

_REFLECT = 4  # cv2.BORDER_REFLECT_101: no black corners

# The usual one for CIFAR (Lee et al. 2015, "Deeply-Supervised Nets"; He et al. 2016, section 4.2): 4 pixels at 32.
# Nothing is zoomed, because pictures this small are cut to the object already.
_SHIFT: tuple[Entry, ...] = (
    "SmallestMaxSize",
    {"CropAndPad": {"percent": 0.125, "keep_size": False, "border_mode": _REFLECT}},
    "RandomCrop",
    "HorizontalFlip",
)

# Same language as the YAML lists. A size that is not given is image_size.
PRESETS: Mapping[str, Sequence[Entry]] = {
    "none": [],
    "shift": _SHIFT,
    # DeVries & Taylor 2017, with a smaller hole in every other picture: for runs of tens of epochs.
    "cutout": [
        *_SHIFT,
        {
            "CoarseDropout": {
                "num_holes_range": [1, 1],
                "hole_height_range": [0.25, 0.4],
                "hole_width_range": [0.25, 0.4],
                "fill": [125, 123, 114],
                "p": 0.5,
            }
        },
    ],
    # For long training from scratch on thumbnails: each crop is another picture, the colours are the picture's own.
    "wide": [
        {"RandomResizedCrop": {"scale": [0.25, 1.0]}},
        "HorizontalFlip",
    ],
    # Objects appear 1.17 times as large as in the whole picture on average, as in the evaluation's centre crop (1.14).
    "light": [
        {"RandomResizedCrop": {"scale": [0.5, 1.0]}},
        "HorizontalFlip",
    ],
    # For fine-tuning: colours stay recognisable, because they often tell the classes apart.
    "standard": [
        {"RandomResizedCrop": {"scale": [0.35, 1.0]}},
        "HorizontalFlip",
        {"Rotate": {"limit": [-15, 15], "border_mode": _REFLECT, "p": 0.3}},
        {"ColorJitter": {"brightness": 0.25, "contrast": 0.25, "saturation": 0.25, "hue": 0.02, "p": 0.8}},
    ],
    # For training from scratch, where memorising is the danger. After it, evaluation at an image size some 1.15 times
    # larger often scores better, because the crops made objects appear 1.4 times as large (Touvron et al. 2019).
    "strong": [
        {"RandomResizedCrop": {"scale": [0.2, 1.0]}},
        "HorizontalFlip",
        {"Rotate": {"limit": [-20, 20], "border_mode": _REFLECT, "p": 0.3}},
        {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.05, "p": 0.8}},
        {"ToGray": {"p": 0.1}},
        {"GaussianBlur": {"sigma_limit": [0.2, 1.5], "blur_limit": 0, "p": 0.1}},
        {
            "CoarseDropout": {
                "num_holes_range": [1, 1],
                "hole_height_range": [0.15, 0.4],
                "hole_width_range": [0.15, 0.4],
                "fill": "random_uniform",
                "p": 0.25,
            }
        },
    ],
}


def read_steps(path: Path) -> list[Entry]:
    """Reads an augmentation list; what its entries mean is not looked at here.

    Raises:
        OptionError: The file is missing, unreadable, no YAML, gives a key twice, or holds no list.
    """
    content = read_yaml(path)
    if not isinstance(content, list):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise OptionError(f"{path}: must hold a YAML list of transforms ('- HorizontalFlip: {{p: 0.5}}'), not {kind}")
    return content


def split_entry(entry: object, location: str) -> tuple[str, Any]:
    """Returns the name and the arguments of one entry; `location` is the beginning of the error message."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, arguments),) = entry.items()
        if isinstance(name, str):
            return name, {} if arguments is None else arguments
    if isinstance(entry, Mapping) and len(entry) > 1:
        raise OptionError(
            f"{location}: one transform per entry, with its arguments indented below it or in braces, "
            f"not {len(entry)} keys ({', '.join(map(str, entry))})"
        )
    raise OptionError(f"{location}: must be a transform's name or 'NAME: {{argument: value}}', not {entry!r}")


def check_names(target: type[Any], arguments: object, location: str) -> dict[str, Any]:
    """Returns the arguments as a new dictionary if `target`'s constructor knows all of their names."""
    names = [name for name in inspect.signature(target.__init__).parameters if name not in {"self", "strict"}]
    if not isinstance(arguments, Mapping):
        raise OptionError(f"{location}: arguments are given as 'name: value' pairs, not as {arguments!r}")
    for argument in arguments:
        if argument not in names:
            raise OptionError(
                f"{location}: no argument '{argument}'{did_you_mean(str(argument), names)}; it has {', '.join(names)}"
            )
    return dict(arguments)


def one_line(error: BaseException) -> str:
    """Returns what an exception says in one line; of pydantic's many lines, the argument and the reason of each."""
    details = getattr(error.__cause__, "errors", None)
    if callable(details):
        found = [(".".join(map(str, detail["loc"][:1])), detail["msg"]) for detail in details()]
        return "; ".join(f"{argument}: {message}" if argument else message for argument, message in found)
    return " ".join(str(error).split()) or type(error).__name__

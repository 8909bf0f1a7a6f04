"""Augmentation lists made into albumentations, and applied under a key.

The only file that imports albumentations. Two of its ways are not kept. Its `set_random_seed` gives every transform of
a list its own generator with the *same* seed, so that all of them fire or none does; here the whole list shares one
pair of generators, seeded with the sample's key. And an argument it does not know is only a warning there, but an error
here.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import asks the package index for a newer release

import albumentations

from vggtransfer.data.augmentation_lists import Entry, check_names, one_line, split_entry
from vggtransfer.data.resampling import Picture, resize
from vggtransfer.errors import OptionError, did_you_mean

AUGMENTER = f"albumentations {albumentations.__version__}"
"""What made an augmented picture; another version may make another one."""

_GROUPS: Mapping[str, type[albumentations.BaseCompose]] = {
    "OneOf": albumentations.OneOf,
    "SomeOf": albumentations.SomeOf,
    "RandomOrder": albumentations.RandomOrder,
    "Sequential": albumentations.Sequential,
}
_FOR_THE_ENCODER = ("FromFloat", "Normalize", "ToFloat", "ToTensorV2")
_NOT_FOR_LISTS = ("BasicTransform", "DualTransform", "ImageOnlyTransform", "Lambda", "Transform3D", *_FOR_THE_ENCODER)


class Size(NamedTuple):
    """Where a list leaves a size out: that of the result; and what masks show outside the picture."""

    height: int
    width: int
    outside: int | None


class Augmentation:
    """A list of transforms, applied to pictures or to pictures and masks alike.

    Picklable. Not to be shared by threads, which would share its generators.

    Args:
        steps: Plain data, as in a YAML list.
        height: Of the result, in pixels; for entries that leave a size out.
        width: The same.
        name: The preset or file, for messages.
        outside: What masks show where a transform moves pixels in from outside, unless the list says otherwise. None:
            there are no masks.

    Raises:
        OptionError: An unknown transform or argument, or a value out of range.
    """

    def __init__(
        self, steps: Sequence[Entry], *, height: int, width: int, name: str, outside: int | None = None
    ) -> None:
        self.name = name
        # One array in, one array out, or two of the same size: nothing whose shapes would have to be compared.
        self._compose = albumentations.Compose(_build(steps, Size(height, width, outside), name), is_check_shapes=False)

    def __call__(self, image: Picture, *, key: int) -> Picture:
        """Returns the picture for `key`, uint8 RGB of any size."""
        picture: Picture = self._apply(key, image=image)["image"]
        return picture

    def with_mask(self, image: Picture, mask: NDArray[np.uint8], *, key: int) -> tuple[Picture, NDArray[np.uint8]]:
        """Returns picture and mask for `key`.

        Args:
            image: uint8 RGB [height, width, 3].
            mask: uint8 [height, width] or [height, width, channels]; its values are never mixed.
            key: Any integer from 0 to 2**64 - 1.
        """
        result = self._apply(key, image=image, mask=mask)
        return result["image"], result["mask"]

    def _apply(self, key: int, **targets: NDArray[np.uint8]) -> dict[str, Any]:
        self._compose.set_random_state(np.random.default_rng(key), random.Random(key))
        try:
            result: dict[str, Any] = self._compose(**targets)
        except Exception as error:  # albumentations raises all sorts, and any can come from the user's list
            height, width = targets["image"].shape[:2]
            raise OptionError(
                f"{self.name}: cannot be applied to a {width} x {height} picture: {one_line(error)}"
            ) from error
        return result


class _RandomResizedCrop(albumentations.RandomResizedCrop):  # type: ignore[misc]
    """The same crops, resampled by `resize`."""

    def apply(self, img: Picture, crop_coords: tuple[int, int, int, int], **_params: object) -> Picture:
        left, top, right, bottom = crop_coords
        return resize(img[top:bottom, left:right], *self.size)


def _build(steps: Sequence[object], size: Size, location: str) -> list[Any]:
    """Makes albumentations objects of plain entries; `location` is the beginning of error messages."""
    built = []
    for number, entry in enumerate(steps, start=1):
        name, arguments = split_entry(entry, f"{location}: entry {number}")
        here = f"{location}: entry {number} ({name})"
        if name in _GROUPS:
            built.append(_build_group(name, arguments, size, here))
        else:
            built.append(_build_transform(name, arguments, size, here))
    return built


def _build_group(name: str, arguments: object, size: Size, location: str) -> Any:
    if isinstance(arguments, list):
        arguments = {"transforms": arguments}
    group = _GROUPS[name]
    arguments = check_names(group, arguments, location)
    steps = arguments.pop("transforms", None)
    if not isinstance(steps, list) or not steps:
        raise OptionError(f"{location}: needs 'transforms', a list with at least one entry")
    children = _build(steps, size, location)
    p, n = arguments.get("p", 0), arguments.get("n", 1)
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise OptionError(f"{location}: p must be a probability from 0 to 1, not {p!r}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise OptionError(f"{location}: n must be a whole number from 1 on, not {n!r}")
    if name == "OneOf" and not any(child.p > 0 for child in children):
        raise OptionError(f"{location}: at least one of its transforms needs a p above 0")
    return _construct(group, {"transforms": children, **arguments}, location)


def _build_transform(name: str, arguments: object, size: Size, location: str) -> Any:
    if name in _FOR_THE_ENCODER:
        raise OptionError(f"{location}: leave it out; the pictures stay 8-bit RGB here and the encoder normalises them")
    transforms = _transforms()
    if name not in transforms:
        raise OptionError(
            f"{location}: not a transform of albumentations {albumentations.__version__}"
            + did_you_mean(name, [*transforms, *_GROUPS])
        )
    transform = transforms[name]
    parameters = inspect.signature(transform.__init__).parameters
    arguments = check_names(transform, arguments, location)
    sizes: dict[str, Any] = {"size": [size.height, size.width], "height": size.height, "width": size.width}
    for argument, value in sizes.items():
        if argument in parameters and parameters[argument].default is inspect.Parameter.empty:
            arguments.setdefault(argument, value)
    if name in ("SmallestMaxSize", "LongestMaxSize") and not {"max_size", "max_size_hw"} & set(arguments):
        arguments["max_size"] = (min if name == "SmallestMaxSize" else max)(size.height, size.width)
    if size.outside is not None and "fill_mask" in parameters and parameters["fill_mask"].default is not None:
        arguments.setdefault("fill_mask", size.outside)
    if "interpolation" not in arguments:
        if "area_for_downscale" in parameters:
            arguments.setdefault("area_for_downscale", "image")
        if name == "RandomResizedCrop":
            transform = _RandomResizedCrop
    built = _construct(transform, arguments, location)
    _check_result(built, max(512, 2 * size.height, 2 * size.width), location)
    return built


@functools.cache
def _transforms() -> Mapping[str, type[Any]]:
    """Returns the public transforms of pictures by name."""

    def public() -> Iterator[tuple[str, type[Any]]]:
        for name, value in vars(albumentations).items():
            if (
                inspect.isclass(value)
                and issubclass(value, albumentations.BasicTransform)
                and not issubclass(value, albumentations.Transform3D)
                and name not in _NOT_FOR_LISTS
                and not name.endswith("3D")
            ):
                yield name, value

    return dict(public())


def _construct(target: type[Any], arguments: Mapping[str, Any], location: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # among them: some wrong values are only warned about
            # Advice to prefer another transform (ShiftScaleRotate, PiecewiseAffine, ...) is no reason to refuse one.
            warnings.filterwarnings("ignore", message=".*(special case|specialized version|alias|very slow)")
            return target(**arguments)
    except Exception as error:  # pydantic's, albumentations' own or one of its warnings: all are about these values
        raise OptionError(f"{location}: {one_line(error)}") from None


def _check_result(transform: Any, side: int, location: str) -> None:
    """Applies one transform to a picture that says nothing, to see that an 8-bit RGB picture comes out of it."""
    needs = set(transform.targets_as_params) - {"image"}
    if needs:
        raise OptionError(f"{location}: needs more than the picture itself ({', '.join(sorted(needs))})")
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = transform(force_apply=True, image=picture)["image"]
    except Exception as error:
        raise OptionError(f"{location}: fails on a {side} x {side} picture: {one_line(error)}") from None
    if result.dtype != np.uint8 or result.ndim != 3 or result.shape[2] != 3:
        raise OptionError(f"{location}: must keep 8-bit RGB pictures, but gives {result.dtype} {result.shape}")

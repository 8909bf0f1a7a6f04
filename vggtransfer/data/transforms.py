"""Pictures made ready for the network: augmentation while training, a plain resize and centre crop otherwise.

The only file that imports albumentations. Two of its ways are not kept. Its `set_random_seed` gives every transform of
a list its own generator with the *same* seed, so that all of them fire or none does; here the whole list shares one
pair of generators, seeded with the sample's key. And an argument it does not know is only a warning there, but an error
here.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import multiprocessing
import os
import random
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import asks the package index for a newer release

import albumentations
import cv2

from vggtransfer.data.augmentation_lists import (
    PRESET_NAMES,
    PRESETS,
    Entry,
    check_names,
    one_line,
    read_steps,
    split_entry,
)
from vggtransfer.data.resampling import Picture, centre_square, resize
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


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Returns the 64-bit key of one sample in one epoch: a pure hash, the same on every machine."""
    packed = struct.pack("<3Q", seed % 2**64, epoch % 2**64, index % 2**64)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def default_crop_fraction(image_size: int) -> float:
    """Returns the part of the short side that evaluation keeps when nothing else is asked for.

    0.875 from 96 px on (256 -> 224, the usual protocol): it cuts little off and makes objects appear 1.14 times as
    large, near what the random crops of training made of them (Touvron et al. 2019, "Fixing the train-test
    resolution discrepancy"). 1 below, where pictures are mostly thumbnails already cut to the object, such as CIFAR's.
    """
    return 0.875 if image_size >= 96 else 1.0


class Transform:
    """Turns a decoded picture of any size into the square picture a network is fed with.

    Picklable. The result depends on the picture and the key only: not on the process, the order of calls, or any global
    random state. Not to be shared by threads, which would share its generators.

    Attributes:
        name: The preset or the file it was made from, for messages.
        steps: The augmentation as plain data, as it would stand in a YAML list.
        image_size: Side of the result in pixels.
        crop_fraction: Part of the short side that the final centre crop keeps.
        min_side: The smallest short side a picture may be decoded at without a visible loss, or None if unknown.
            Without steps it follows from image_size and crop_fraction.
    """

    def __init__(
        self,
        name: str,
        *,
        image_size: int,
        steps: Sequence[Entry] = (),
        crop_fraction: float = 1.0,
        min_side: int | None = None,
    ) -> None:
        if image_size < 1:
            raise OptionError(f"image_size must be at least 1, not {image_size}")
        if not 0 < crop_fraction <= 1:
            raise OptionError(f"crop_fraction must be above 0 and at most 1, not {crop_fraction}")
        self.name = name
        self.steps = tuple(steps)
        self.image_size = image_size
        self.crop_fraction = crop_fraction
        self.min_side = min_side if steps else round(image_size / crop_fraction)
        # One array in, one array out: nothing whose shapes would have to be compared.
        self._augment = (
            albumentations.Compose(_build(self.steps, image_size, name), is_check_shapes=False) if self.steps else None
        )

    def __repr__(self) -> str:
        return f"Transform({self.name!r}, image_size={self.image_size}, crop_fraction={self.crop_fraction})"

    def __call__(self, image: Picture, *, key: int) -> Picture:
        """Returns the picture for `key` (see `sample_seed`), which only matters when there is augmentation.

        Args:
            image: uint8 RGB [height, width, 3]; left as it is.
            key: Any integer from 0 to 2**64 - 1.

        Returns:
            uint8 RGB [image_size, image_size, 3], contiguous, sharing no memory with `image`.
        """
        _one_opencv_thread_in_workers(os.getpid())
        result = image
        if self._augment is not None:
            self._augment.set_random_state(np.random.default_rng(key), random.Random(key))
            try:
                result = self._augment(image=image)["image"]
            except Exception as error:  # albumentations raises all sorts, and any can come from the user's list
                size = f"{image.shape[1]} x {image.shape[0]}"
                raise OptionError(f"{self.name}: cannot be applied to a {size} picture: {one_line(error)}") from error
        if result.shape[:2] != (self.image_size, self.image_size) or self.crop_fraction < 1:
            result = centre_square(result, self.image_size, self.crop_fraction)
        if np.may_share_memory(result, image):
            result = result.copy()
        return np.ascontiguousarray(result)


def evaluation_transform(image_size: int, *, crop_fraction: float | None = None, name: str = "evaluation") -> Transform:
    """Resizes the short side to `image_size / crop_fraction` pixels and cuts the central square out: no randomness.

    Args:
        image_size: Side of the result in pixels.
        crop_fraction: Part of the short side that is kept, in (0, 1]; None for `default_crop_fraction`.
        name: What the transform is called in messages.

    Raises:
        OptionError: A value is out of range.
    """
    fraction = default_crop_fraction(image_size) if crop_fraction is None else crop_fraction
    return Transform(name, image_size=image_size, crop_fraction=fraction)


def train_transform(preset: str | Path, image_size: int) -> Transform:
    """Makes the augmentation for training.

    Args:
        preset: `none` (as in evaluation), `shift` (flips, and shifts by up to an eighth of the side: for thumbnails of
            32 to 64 pixels), `cutout` (the same with a rectangle erased in every other picture), `light` (crops and
            flips), `wide` (the same with crops down to a quarter of the area: for training on thumbnails from scratch),
            `standard` (for fine-tuning: also slight rotations and changes of colour), `strong` (for training from
            scratch: wide crops, strong colour changes, greyscale, blur, erased rectangles), or the path of a YAML file
            with a list of albumentations transforms:

                - RandomResizedCrop: {scale: [0.4, 1.0]}   # a size that is not given is image_size
                - HorizontalFlip
                - OneOf:
                    p: 0.2
                    transforms: [GaussianBlur, {MotionBlur: {blur_limit: 5}}]

            OneOf, SomeOf, RandomOrder and Sequential nest. Conversion to float and normalisation are not for the
            list: the encoder does both. If the list ends with another size, the centre square is resized to
            image_size. Where `interpolation` is not given, shrinking averages over areas and so never aliases. A list
            that begins with a crop or a resize is the fastest.
        image_size: Side of the result in pixels.

    Raises:
        OptionError: Neither a preset nor a readable list, an unknown transform or argument, or a value out of range.
    """
    name = str(preset)
    if name == "none":
        return evaluation_transform(image_size, name=name)
    if steps := PRESETS.get(name):
        return Transform(name, image_size=image_size, steps=steps, min_side=_min_side(steps, image_size))
    path = Path(preset)
    if path.suffix.lower() not in {".yaml", ".yml"} and not path.is_file():
        raise OptionError(
            f"augmentation '{name}' is neither a preset ({', '.join(PRESET_NAMES)}) nor a YAML file"
            + did_you_mean(name, PRESET_NAMES)
        )
    try:
        return Transform(str(path), image_size=image_size, steps=read_steps(path))
    except RecursionError:
        raise OptionError(
            f"{path}: the list contains itself; do not use aliases (*name) inside what they name"
        ) from None


def _min_side(steps: Sequence[Entry], image_size: int) -> int:
    """Returns the short side at which a preset's smallest crop still has image_size pixels along its shorter side."""
    crop = steps[0]
    if not isinstance(crop, Mapping):
        return image_size  # a resize comes first
    # A crop of area fraction s and ratio 4:3 out of a square of side a is at its shorter side a * sqrt(s * 3/4).
    return math.ceil(image_size / math.sqrt(crop["RandomResizedCrop"]["scale"][0] * 3 / 4))


@functools.lru_cache(maxsize=1)
def _one_opencv_thread_in_workers(_pid: int) -> None:
    """Leaves the cores to the data loader's processes; the main process keeps OpenCV's own setting."""
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(0)


class _RandomResizedCrop(albumentations.RandomResizedCrop):  # type: ignore[misc]
    """The same crops, resampled by `resize`."""

    def apply(self, img: Picture, crop_coords: tuple[int, int, int, int], **_params: object) -> Picture:
        left, top, right, bottom = crop_coords
        return resize(img[top:bottom, left:right], *self.size)


def _build(steps: Sequence[object], image_size: int, location: str) -> list[Any]:
    """Makes albumentations objects of plain entries; `location` is the beginning of error messages."""
    built = []
    for number, entry in enumerate(steps, start=1):
        name, arguments = split_entry(entry, f"{location}: entry {number}")
        here = f"{location}: entry {number} ({name})"
        if name in _GROUPS:
            built.append(_build_group(name, arguments, image_size, here))
        else:
            built.append(_build_transform(name, arguments, image_size, here))
    return built


def _build_group(name: str, arguments: object, image_size: int, location: str) -> Any:
    if isinstance(arguments, list):
        arguments = {"transforms": arguments}
    group = _GROUPS[name]
    arguments = check_names(group, arguments, location)
    steps = arguments.pop("transforms", None)
    if not isinstance(steps, list) or not steps:
        raise OptionError(f"{location}: needs 'transforms', a list with at least one entry")
    children = _build(steps, image_size, location)
    p, n = arguments.get("p", 0), arguments.get("n", 1)
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise OptionError(f"{location}: p must be a probability from 0 to 1, not {p!r}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise OptionError(f"{location}: n must be a whole number from 1 on, not {n!r}")
    if name == "OneOf" and not any(child.p > 0 for child in children):
        raise OptionError(f"{location}: at least one of its transforms needs a p above 0")
    return _construct(group, {"transforms": children, **arguments}, location)


def _build_transform(name: str, arguments: object, image_size: int, location: str) -> Any:
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
    sizes: dict[str, Any] = {"size": [image_size, image_size], "height": image_size, "width": image_size}
    for size, value in sizes.items():
        if size in parameters and parameters[size].default is inspect.Parameter.empty:
            arguments.setdefault(size, value)
    if name in ("SmallestMaxSize", "LongestMaxSize") and not {"max_size", "max_size_hw"} & set(arguments):
        arguments["max_size"] = image_size
    if "interpolation" not in arguments:
        if "area_for_downscale" in parameters:
            arguments.setdefault("area_for_downscale", "image")
        if name == "RandomResizedCrop":
            transform = _RandomResizedCrop
    built = _construct(transform, arguments, location)
    _check_result(built, max(512, 2 * image_size), location)
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

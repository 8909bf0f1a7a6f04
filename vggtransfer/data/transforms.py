"""Pictures made ready for the network: augmentation while training, a plain resize and centre crop otherwise."""

from __future__ import annotations

import functools
import hashlib
import math
import multiprocessing
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from vggtransfer.data.augmentation_lists import PRESET_NAMES, PRESETS, Entry, read_steps
from vggtransfer.data.augmentation_objects import Augmentation
from vggtransfer.data.resampling import Picture, centre_square
from vggtransfer.errors import OptionError, did_you_mean


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
        self._augment = Augmentation(self.steps, height=image_size, width=image_size, name=name) if self.steps else None

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
        one_opencv_thread_in_workers(os.getpid())
        result = image if self._augment is None else self._augment(image, key=key)
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
def one_opencv_thread_in_workers(_pid: int) -> None:
    """Leaves the cores to the data loader's processes; the main process keeps OpenCV's own setting."""
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(0)

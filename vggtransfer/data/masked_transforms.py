"""Pictures and their masks made ready for training, together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.augmentation_lists import Entry, read_steps
from vggtransfer.data.augmentation_objects import Augmentation
from vggtransfer.data.resampling import Picture, resize
from vggtransfer.data.seen_size import SeenSize
from vggtransfer.data.transforms import one_opencv_thread_in_workers
from vggtransfer.errors import OptionError, did_you_mean

IGNORED = 255
"""Value of a mask's pixels that do not count."""

# Around a picture that is smaller than the crop: the mean colour of ImageNet, which the encoder makes zero, and nothing
# that counts (as Chen et al. 2018 do; reflection would teach streets above the sky).
_BORDER = {"border_mode": 0, "fill": [124, 116, 104]}
_CROP: Entry = {"RandomCrop": {"pad_if_needed": True, "pad_position": "random", **_BORDER}}

# In the language of `vggtransfer.data.augmentation_lists`. A size that is not given is that of the crops.
MASKED_PRESETS: Mapping[str, Sequence[Entry]] = {
    "none": [_CROP],
    "flip": [_CROP, "HorizontalFlip"],
    "standard": [
        {"RandomScale": {"scale_limit": [-0.25, 0.5], "p": 1.0}},
        _CROP,
        "HorizontalFlip",
        {"ColorJitter": {"brightness": 0.25, "contrast": 0.25, "saturation": 0.25, "hue": 0.02, "p": 0.8}},
    ],
    # The scales of DeepLab (Chen et al. 2018, section 4.1) and what changes colours and sharpness.
    "strong": [
        {"RandomScale": {"scale_limit": [-0.5, 1.0], "p": 1.0}},
        _CROP,
        "HorizontalFlip",
        {"Rotate": {"limit": [-10, 10], "p": 0.3, **_BORDER}},
        {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.05, "p": 0.8}},
        {"ToGray": {"p": 0.05}},
        {"GaussianBlur": {"sigma_limit": [0.2, 1.5], "blur_limit": 0, "p": 0.1}},
    ],
}


class MaskedTransform:
    """Turns a picture and its mask, of any size, into a crop of both.

    Both are resized to the size at which the network sees pictures, augmented, and cropped; where that leaves them
    smaller than the crop, there is a border that does not count. Picklable. The result depends on picture, mask and key
    only. Not to be shared by threads.

    Args:
        augmentation: `none`, `flip`, `standard`, `strong`, or the path of a YAML file with a list of albumentations, as
            for `vggtransfer.data.transforms.train_transform`. Masks go through the same changes of shape, without
            mixing values; what moves in from outside does not count unless the list says otherwise.
        seen: How large the network sees pictures.
        crop: (height, width) of the result, in pixels.

    Attributes:
        name: The preset or the file.
        steps: The augmentation as plain data.

    Raises:
        OptionError: Neither a preset nor a readable list, an unknown transform or argument, or a value out of range.
    """

    def __init__(self, augmentation: str | Path, *, seen: SeenSize, crop: tuple[int, int]) -> None:
        self.name, self.seen, self.crop = str(augmentation), seen, crop
        self.steps = tuple(_steps(augmentation))
        height, width = crop
        self._augment = Augmentation(self.steps, height=height, width=width, name=self.name, outside=IGNORED)

    def __call__(self, image: Picture, mask: NDArray[np.uint8], *, key: int) -> tuple[Picture, NDArray[np.uint8]]:
        """Returns picture and mask for `key` (see `vggtransfer.data.transforms.sample_seed`).

        Args:
            image: uint8 RGB [height, width, 3]; left as it is.
            mask: uint8 [height, width], or [height, width, classes]; left as it is.
            key: Any integer from 0 to 2**64 - 1.

        Raises:
            OptionError: A transform cannot be applied to this picture.
        """
        one_opencv_thread_in_workers(os.getpid())
        size = self.seen.of(*image.shape[:2])
        image, mask = self._augment.with_mask(resize(image, *size), resize_mask(mask, *size), key=key)
        return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def resize_mask(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resamples a mask [height, width] or [height, width, classes]; each pixel takes the value at its centre."""
    if mask.shape[:2] == (height, width):
        return mask
    # Not cv2.resize, which takes four channels at most, and whose INTER_NEAREST looks at corners.
    rows, columns = (
        ((np.arange(after) + 0.5) * before / after).astype(np.intp)
        for after, before in ((height, mask.shape[0]), (width, mask.shape[1]))
    )
    resized: NDArray[np.uint8] = mask[rows][:, columns]
    return resized


def _steps(augmentation: str | Path) -> Sequence[Entry]:
    name = str(augmentation)
    if name in MASKED_PRESETS:
        return MASKED_PRESETS[name]
    path = Path(augmentation)
    if path.suffix.lower() not in {".yaml", ".yml"} and not path.is_file():
        raise OptionError(
            f"augmentation '{name}' is neither a preset ({', '.join(MASKED_PRESETS)}) nor a YAML file"
            + did_you_mean(name, MASKED_PRESETS)
        )
    return [*read_steps(path), _CROP]

"""Pictures with masks as a torch data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vggtransfer.data.dataset import errors_that_travel
from vggtransfer.data.decode import decode_image
from vggtransfer.data.masked_transforms import MaskedTransform
from vggtransfer.data.resampling import resize
from vggtransfer.data.seen_size import SeenSize
from vggtransfer.data.transforms import sample_seed
from vggtransfer.errors import BadImageError
from vggtransfer.segmentation.layouts import MaskedSample
from vggtransfer.segmentation.mask_coding import MaskCoding
from vggtransfer.segmentation.mask_files import open_mask

_MOST_CROPS = 3


class TrainingMasks(Dataset[tuple[Tensor, Tensor, int]]):
    """Crops of pictures and masks: (uint8 [3, height, width], class numbers uint8, index) by (epoch, index).

    The masks are [height, width], or [classes, height, width] for `"multilabel"`. Epoch and index together with the
    seed are the only source of randomness.
    """

    def __init__(
        self, samples: Sequence[MaskedSample], transform: MaskedTransform, *, coding: MaskCoding, seed: int
    ) -> None:
        self.samples, self.transform, self.coding, self.seed = tuple(samples), transform, coding, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        """Returns one sample.

        Raises:
            BadImageError: Picture or mask cannot be read (any more), or do not fit each other.
            OptionError: The transform cannot be applied to it.
        """
        epoch, index = key
        sample = self.samples[index]
        with errors_that_travel():
            image, mask = decode_image(sample.path), read_mask(sample, self.coding)
            _check_sizes(sample.path, image, mask)
            image, mask = self.transform(image, mask, key=sample_seed(self.seed, epoch, index))
        return _channels_first(image), _channels_first(mask), index


class WholeMasks(Dataset[tuple[Tensor, Tensor, int]]):
    """Whole pictures as the network sees them, with their masks in full size; for validation."""

    def __init__(self, samples: Sequence[MaskedSample], seen: SeenSize, *, coding: MaskCoding) -> None:
        self.samples, self.seen, self.coding = tuple(samples), seen, coding

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        """Returns one sample.

        Raises:
            BadImageError: Picture or mask cannot be read (any more), or do not fit each other.
        """
        _, index = key
        sample = self.samples[index]
        with errors_that_travel():
            image, mask = decode_image(sample.path), read_mask(sample, self.coding)
            _check_sizes(sample.path, image, mask)
        image = resize(image, *self.seen.of(*image.shape[:2]))
        return _channels_first(image), _channels_first(mask), index


def batch_kinds(
    samples: Sequence[MaskedSample], sizes: Mapping[Path, tuple[int, int]], seen: SeenSize, *, crop: tuple[int, int]
) -> list[tuple[int, ...]]:
    """Which samples of `WholeMasks` may share a batch: those of equal kind.

    Pictures of one size may; those that are seen much larger than the training crops are alone, because memory that is
    enough for a batch of crops may not be for a batch of them.

    Args:
        samples: Pictures and masks.
        sizes: (height, width) of each picture.
        seen: How large the network sees them.
        crop: (height, width) of the training crops.
    """
    kinds: list[tuple[int, ...]] = []
    for number, sample in enumerate(samples):
        size = sizes[sample.path]
        height, width = seen.of(*size)
        alone = height * width > _MOST_CROPS * crop[0] * crop[1]
        kinds.append((*size, number) if alone else size)
    return kinds


def read_mask(sample: MaskedSample, coding: MaskCoding) -> NDArray[np.uint8]:
    """Returns class numbers uint8 [height, width]; 0 and 1 [height, width, classes] of masks by class.

    Raises:
        BadImageError: A mask that cannot be read, or with values that no class has.
    """
    layers = []
    for path in sample.masks:
        raw = open_mask(path)
        mask, unknown = coding.encode(raw)
        if unknown:
            raise BadImageError(f"{path}: {coding.complaint(unknown, raw)}")
        layers.append(mask)
    if coding.task != "multilabel":
        return layers[0]
    if len({layer.shape for layer in layers}) > 1:
        raise BadImageError(f"{sample.path}: its masks have different sizes")
    return np.stack(layers, axis=-1)


def _check_sizes(path: Path, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    if image.shape[:2] != mask.shape[:2]:
        raise BadImageError(f"{path}: picture and mask have different sizes")


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels))

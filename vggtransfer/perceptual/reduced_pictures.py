"""Pairs of a picture and a smaller version of it, to learn the way back."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vggtransfer.data.dataset import errors_that_travel
from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import Sample
from vggtransfer.data.resampling import Picture
from vggtransfer.data.transforms import sample_seed


def reduced(picture: Picture, factor: int) -> Picture:
    """Makes a picture smaller by a whole factor, bicubically and without aliasing, as the literature's data sets are.

    Args:
        picture: uint8 RGB [factor * height, factor * width, 3].
        factor: A divisor of both sides.
    """
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


class ReducedPictures(Dataset[tuple[Tensor, Tensor, int]]):
    """Squares of pictures at their full resolution, as (small uint8, large uint8, index) by (epoch, index).

    Pictures are not resized before: what resizing leaves out, no network could learn. Smaller ones than the square are
    continued by their mirror image.

    Args:
        samples: The pictures.
        size: Side of the large square in pixels, a multiple of the factor.
        factor: How much smaller the small one is.
        seed: Of the place and of mirroring; None takes the middle, for validation.
    """

    def __init__(self, samples: Sequence[Sample], *, size: int, factor: int, seed: int | None) -> None:
        self.samples = tuple(samples)
        self.size, self.factor, self.seed = size, factor, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        with errors_that_travel():
            picture = decode_image(self.samples[index].path)
        large = self._square(picture, None if self.seed is None else sample_seed(self.seed, epoch, index))
        return _channels_first(reduced(large, self.factor)), _channels_first(large), index

    def _square(self, picture: Picture, key: int | None) -> Picture:
        missing = [max(0, self.size - side) for side in picture.shape[:2]]
        if any(missing):
            picture = cv2.copyMakeBorder(picture, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT)  # type: ignore[assignment]
        rows, columns = (side - self.size for side in picture.shape[:2])
        if key is None:
            return picture[rows // 2 : rows // 2 + self.size, columns // 2 : columns // 2 + self.size]
        draw = np.random.default_rng(key)
        top, left = draw.integers(rows + 1), draw.integers(columns + 1)
        square = picture[top : top + self.size, left : left + self.size]
        square = square[:, ::-1] if draw.integers(2) else square
        return square.swapaxes(0, 1) if draw.integers(2) else square


def _channels_first(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))

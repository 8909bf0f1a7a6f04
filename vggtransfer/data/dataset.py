"""Labelled picture files as a torch data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import Sample
from vggtransfer.data.resampling import Picture
from vggtransfer.data.scan import BadPicture
from vggtransfer.data.transforms import sample_seed
from vggtransfer.errors import BadImageError, OptionError, VGGTransferError


class PictureTransform(Protocol):
    """What `PictureDataset` applies; an attribute `min_side: int | None` is passed on to `decode_image`."""

    def __call__(self, image: Picture, *, key: int) -> Picture:
        """Returns uint8 [height, width, 3] that depends on the picture and the key only."""
        ...


class PictureDataset(Dataset[tuple[Tensor, int, int]]):
    """Decodes, transforms and returns one picture as (uint8 [3, height, width], label, index).

    A sample is asked for by its index or by (epoch, index). Epoch and index together with the seed are the only source
    of randomness, so that neither workers nor the order of calls change a picture.

    Attributes:
        samples: Paths and labels.
        transform: Applied with the sample's key.
        seed: Of the run.
        later: Transforms that take over from an epoch on, as (epoch, transform) with rising epochs.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: PictureTransform,
        *,
        seed: int,
        later: Sequence[tuple[int, PictureTransform]] = (),
    ) -> None:
        self.samples = tuple(samples)
        self.transform = transform
        self.seed = seed
        self.later = tuple(later)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int, int]:
        """Returns one sample.

        Raises:
            BadImageError: The file cannot be decoded (any more).
            OptionError: The transform cannot be applied to it.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        sample = self.samples[index]
        transform = next((later for start, later in reversed(self.later) if start <= epoch), self.transform)
        with errors_that_travel():
            image = decode_image(sample.path, min_side=getattr(transform, "min_side", None))
            image = transform(image, key=sample_seed(self.seed, epoch, index))
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), sample.label, index


class PicturesOrFaults(Dataset[tuple[Tensor, int, int] | BadPicture]):
    """The samples of a `PictureDataset`, but of a file that cannot be decoded, the file and why."""

    def __init__(self, pictures: PictureDataset) -> None:
        self.pictures = pictures

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int, int] | BadPicture:
        try:
            return self.pictures[key]
        except BadImageError as error:
            index = key[1] if isinstance(key, tuple) else key
            return BadPicture.of(self.pictures.samples[index].path, error)


def divide_faults(
    batch: Sequence[tuple[Tensor, int, int] | BadPicture],
) -> tuple[tuple[Tensor, Tensor, Tensor] | None, list[BadPicture]]:
    """Collates samples of `PicturesOrFaults`: (pictures, labels, indices), None if there are none, and the faults."""
    good = [sample for sample in batch if not isinstance(sample, BadPicture)]
    bad = [sample for sample in batch if isinstance(sample, BadPicture)]
    return (tuple(default_collate(good)) if good else None), bad


@contextmanager
def errors_that_travel() -> Iterator[None]:
    """In a loader process, gives the errors of pictures and transforms a form in which the main process raises them."""
    try:
        yield
    except (BadImageError, OptionError) as error:
        if get_worker_info() is None:
            raise
        kind = _BadImageInWorkerError if isinstance(error, BadImageError) else _OptionInWorkerError
        raise kind(str(error)) from None


class _InWorkerError(VGGTransferError):
    """An error in a loader process: torch makes it anew in the main process, from its traceback as one string."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rstrip().rsplit("\n", 1)[-1].removeprefix(f"{__name__}.{type(self).__qualname__}: "))


class _BadImageInWorkerError(_InWorkerError, BadImageError):
    pass


class _OptionInWorkerError(_InWorkerError, OptionError):
    pass

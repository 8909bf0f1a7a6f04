"""Pictures decoded together with the SHA-256 of the bytes they were decoded from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vggtransfer.data.decode import decode_image
from vggtransfer.data.loader import Key
from vggtransfer.data.transforms import Transform
from vggtransfer.errors import BadImageError
from vggtransfer.features.picture_list import PictureList


class HashedPicture(NamedTuple):
    """A picture uint8 [3, height, width] and the SHA-256 of its file, 32 bytes; or why there is none."""

    number: int
    pixels: Tensor | None
    digest: bytes
    reason: str


class HashedBatch(NamedTuple):
    """Good pictures uint8 [batch, 3, height, width] with their numbers and digests, and the numbers of the others."""

    pixels: Tensor | None
    indices: list[int]
    digests: list[bytes]
    bad: list[tuple[int, str]]


class HashedPictures(Dataset[HashedPicture]):
    """Reads each file once; one that cannot be decoded is no error, but says why."""

    def __init__(self, pictures: PictureList, transform: Transform) -> None:
        self.pictures = pictures
        self.transform = transform

    def __getitem__(self, key: Key) -> HashedPicture:
        _, number = key
        path = self.pictures.path(number)
        try:
            # What is no file has its reason told by the decoder; reading a pipe would wait for a writer.
            content = path.read_bytes() if path.is_file() else b""
            image = decode_image(content or path, min_side=self.transform.min_side)
            digest = hashlib.sha256(content).digest()
        except BadImageError as error:
            return HashedPicture(number, None, b"", _reason(path, error))
        except (OSError, MemoryError) as error:
            return HashedPicture(number, None, b"", getattr(error, "strerror", None) or "not enough memory to read it")
        pixels = torch.from_numpy(self.transform(image, key=0).transpose(2, 0, 1).copy())
        return HashedPicture(number, pixels, digest, "")


def _reason(path: object, error: BadImageError) -> str:
    return str(error).removeprefix("picture in memory: ").removeprefix(f"{path}: ".replace("\n", " "))


def collate_hashed(batch: Sequence[HashedPicture]) -> HashedBatch:
    """Joins the pictures that could be decoded."""
    good = [picture for picture in batch if picture.pixels is not None]
    return HashedBatch(
        torch.stack([picture.pixels for picture in good if picture.pixels is not None]) if good else None,
        [picture.number for picture in good],
        [picture.digest for picture in good],
        [(picture.number, picture.reason) for picture in batch if picture.pixels is None],
    )

"""Pictures that an index lacks, to embeddings in part files, which a stopped run and other processes leave behind."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vggtransfer.data.loader import Batches, picture_loader, resolve_workers, stop_workers
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.errors import DataError
from vggtransfer.features.feature_parts import Part, part_path, present_parts, read_part, write_part
from vggtransfer.features.hashed_pictures import HashedPictures, collate_hashed
from vggtransfer.features.picture_list import PictureList
from vggtransfer.features.processes import Share
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.retrieval.index_folder import PARTS_PREFIX

if TYPE_CHECKING:
    from torch import Tensor

# Enough for a batch or more, little enough to lose and to share out among processes.
_FEWEST_PICTURES, _MOST_PICTURES = 64, 512
_COLUMN = "embedding"
CHANGED_MEANWHILE = "it changed while it was being read; sync once more"


class PictureEmbedder(Protocol):
    """What an index needs of an embedder: `vggtransfer.retrieval.embedder.Embedder` has it."""

    image_size: int
    crop_fraction: float
    device: torch.device

    @property
    def dimension(self) -> int: ...

    @property
    def description(self) -> dict[str, Any]: ...

    @property
    def digest(self) -> str: ...

    def embed(self, pictures: Tensor) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Work:
    """Files to embed, the same in every process.

    Attributes:
        pictures: The files.
        digests: SHA-256 of each; one that has another by the time it is read gives no vector.
        batch_size: Pictures per pass through the network.
        workers: Processes that read them; None chooses.
    """

    pictures: PictureList
    digests: Sequence[bytes]
    batch_size: int
    workers: int | None

    @property
    def pictures_per_part(self) -> int:
        """How many pictures are embedded, written and, after a kill, lost together."""
        return min(_MOST_PICTURES, max(_FEWEST_PICTURES, len(self.digests) // 64 // 64 * 64))

    @property
    def parts(self) -> int:
        """How many part files there will be."""
        return -(-len(self.digests) // self.pictures_per_part)

    def part_range(self, number: int) -> range:
        """The numbers of the pictures in a part."""
        start = number * self.pictures_per_part
        return range(start, min(start + self.pictures_per_part, len(self.digests)))

    def folder(self, index: Path, embedder: PictureEmbedder) -> Path:
        """Where its parts go: a folder of this work alone."""
        return index / f"{PARTS_PREFIX}{self._fingerprint(embedder)[:16]}"

    def _fingerprint(self, embedder: PictureEmbedder) -> str:
        content = "".join([embedder.digest, self.pictures.digest]).encode() + b"".join(self.digests)
        return hashlib.sha256(content).hexdigest()


class _PartBatches(Batches):
    """The batches of some parts; none has pictures of two."""

    def __init__(self, work: Work, parts: Sequence[int]) -> None:
        super().__init__(
            [
                [(0, number) for number in of_part[start : start + work.batch_size]]
                for of_part in map(work.part_range, parts)
                for start in range(0, len(of_part), work.batch_size)
            ]
        )


def embed_share(work: Work, embedder: PictureEmbedder, folder: Path, share: Share) -> bool:
    """Computes those parts that this process has to and that are not there yet; returns whether all are there now."""
    present = present_parts(folder)
    missing = [part for part in range(share.rank, work.parts, share.processes) if part not in present]
    if missing:
        steps = sum(len(work.part_range(part)) for part in missing)
        if not sys.stderr.isatty():
            print(f"embedding {steps:,} pictures", file=sys.stderr)
        with ProgressBar("embedding", steps=steps, shown=share.local_rank == 0) as bar:
            _embed_parts(missing, work=work, embedder=embedder, folder=folder, share=share, bar=bar)
    return len(present_parts(folder)) == work.parts


def _embed_parts(
    missing: Sequence[int], *, work: Work, embedder: PictureEmbedder, folder: Path, share: Share, bar: ProgressBar
) -> None:
    batches = _PartBatches(work, missing)
    # Reading one batch overlaps with nothing.
    workers = 0 if work.workers is None and len(batches) <= 1 else work.workers
    loader = picture_loader(
        HashedPictures(work.pictures, evaluation_transform(embedder.image_size, crop_fraction=embedder.crop_fraction)),
        batches,
        workers=resolve_workers(workers, device=embedder.device, processes=share.local_processes),
        pin_memory=embedder.device.type == "cuda",
        collate=collate_hashed,
    )
    try:
        coming = iter(loader)
        for part in missing:
            _embed_part(part, coming, work=work, embedder=embedder, folder=folder, bar=bar)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted: the index is as it was; repeat the same command to go on") from None
    finally:
        stop_workers(loader)


def _embed_part(
    part: int, coming: Iterator[Any], *, work: Work, embedder: PictureEmbedder, folder: Path, bar: ProgressBar
) -> None:
    rows = [np.empty((0, embedder.dimension), np.float32)]
    indices: list[int] = []
    digests: list[bytes] = []
    bad: list[tuple[int, str]] = []
    while len(indices) + len(bad) < len(work.part_range(part)):
        batch = next(coming)
        if batch.pixels is not None:
            rows.append(embedder.embed(batch.pixels))
        indices += batch.indices
        digests += batch.digests
        bad += batch.bad
        bar.advance(steps=len(batch.indices) + len(batch.bad))
    write_part(
        part_path(folder, part),
        fingerprint=folder.name,
        features={_COLUMN: np.concatenate(rows)},
        indices=indices,
        digests=digests,
        bad=bad,
    )


@dataclass(frozen=True)
class EmbeddedPart:
    """What came of the pictures of one part.

    Attributes:
        numbers: Those that have a vector, int64 [n].
        bad: Numbers of the others, and why.
    """

    numbers: NDArray[np.int64]
    bad: dict[int, str]
    _part: Part
    _good: NDArray[np.bool_]

    def vectors(self) -> NDArray[np.float32]:
        """Unit vectors of the embedder, float32 [n, features], read from the part file."""
        vectors: NDArray[np.float32] = self._part.array(_COLUMN)[self._good]
        return vectors


def embedded_parts(work: Work, folder: Path) -> list[EmbeddedPart]:
    """Opens all parts of some work; their vectors stay on disk.

    Raises:
        DataError: One is damaged, or is not of this work.
    """
    return [_opened(read_part(part_path(folder, number)), work, folder) for number in range(work.parts)]


def _opened(part: Part, work: Work, folder: Path) -> EmbeddedPart:
    if part.fingerprint != folder.name:
        raise DataError(f"{part.path} belongs to other work; delete {folder} and repeat the command")
    numbers, digests = part.array("index"), part.array("sha256")
    good = np.array([work.digests[n] == digest.tobytes() for n, digest in zip(numbers, digests, strict=True)], bool)
    bad = dict(part.bad) | dict.fromkeys(numbers[~good].tolist(), CHANGED_MEANWHILE)
    return EmbeddedPart(numbers[good], bad, part, good)

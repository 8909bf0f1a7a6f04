"""Pictures in, part files out: reading and computing overlap, and memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from vggtransfer.data.loader import Batches, Key, picture_loader, resolve_workers, stop_workers
from vggtransfer.data.scan import BadPicture
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.features.encoder_choice import Trunk
from vggtransfer.features.extraction_folder import ExtractionFolder
from vggtransfer.features.extraction_plan import ExtractionPlan
from vggtransfer.features.hashed_pictures import HashedPictures, collate_hashed
from vggtransfer.features.part_rows import PartRows
from vggtransfer.features.picture_list import PictureList
from vggtransfer.features.processes import Share
from vggtransfer.progress_bar import ProgressBar


class PartBatches(Batches):
    """The batches of some parts, one part after the other, made when they are asked for; none has pictures of two."""

    def __init__(self, parts: Sequence[int], plan: ExtractionPlan, batch_size: int) -> None:
        super().__init__()
        self._ranges = [plan.part_range(number) for number in parts]
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        for part in self._ranges:
            for start in range(0, len(part), self._batch_size):
                yield [(0, index) for index in part[start : start + self._batch_size]]

    def __len__(self) -> int:
        return sum(-(-len(part) // self._batch_size) for part in self._ranges)


def compute_parts(
    missing: Sequence[int],
    *,
    folder: ExtractionFolder,
    pictures: PictureList,
    trunk: Trunk,
    device: torch.device,
    share: Share,
    batch_size: int,
    workers: int | None,
    on_bad_image: Literal["skip", "stop"],
    bar: ProgressBar,
) -> None:
    """Computes and writes parts.

    Args:
        missing: Their numbers.
        folder: Where to, and by which plan.
        pictures: The pictures.
        trunk: Computes the maps.
        device: Where it does.
        share: How many processes share the cores of this machine.
        batch_size: Pictures per pass through the trunk.
        workers: Processes that read pictures; None chooses.
        on_bad_image: Whether a picture that cannot be read is an error.
        bar: Moved on by each picture.

    Raises:
        DataError: A picture cannot be read where that is an error.
        OptionError: Numbers are too large for the precision or the files.
        WeightsError: The encoder gives NaN in float32.
        KeyboardInterrupt: Ctrl-C; the message tells how to go on.
    """
    plan = folder.plan
    batches = PartBatches(missing, plan, batch_size)
    if workers is None and len(batches) <= 1:
        workers = 0  # reading one batch overlaps with nothing
    loader = picture_loader(
        HashedPictures(pictures, evaluation_transform(plan.image_size, crop_fraction=plan.crop_fraction)),
        batches,
        workers=resolve_workers(workers, device=device, processes=share.local_processes),
        pin_memory=device.type == "cuda",
        collate=collate_hashed,
    )
    numbers, part, written = iter(missing), None, 0
    try:
        for batch in loader:
            if batch.bad and on_bad_image == "stop":
                index, reason = batch.bad[0]
                raise BadPicture(pictures.path(index), reason).stop()
            part = part or PartRows(plan, next(numbers))
            part.add(batch, {} if batch.pixels is None else trunk(batch.pixels))
            bar.advance(steps=len(batch.indices) + len(batch.bad))
            if part.is_full:
                part.write(folder.parts)
                part, written = None, written + 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: {written} of {len(missing)} parts are finished and kept in {folder.parts}; "
            "repeat the same command to go on"
        ) from None
    finally:
        stop_workers(loader)

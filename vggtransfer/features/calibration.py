"""The int8 trunk of an extraction: calibrated on some of the pictures, compared with float32 on others."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import DataError
from vggtransfer.features.encoder_choice import Trunk
from vggtransfer.features.extraction_plan import ExtractionPlan
from vggtransfer.features.frozen_trunk import FrozenTrunk
from vggtransfer.features.hashed_pictures import HashedPictures, collate_hashed
from vggtransfer.features.picture_list import PictureList
from vggtransfer.features.pooling import pool_maps

_CALIBRATION_PICTURES = 64
_COMPARED_PICTURES = 32


def calibrated_trunk(encoder: VGGEncoder, *, plan: ExtractionPlan, pictures: PictureList, batch_size: int) -> Trunk:
    """Quantises an encoder and tells on standard error what that costs.

    The pictures are spread evenly over the list, the same in every process; those compared are none of those that it
    was calibrated on.

    Args:
        encoder: The encoder.
        plan: Of the extraction.
        pictures: Its pictures.
        batch_size: Pictures per pass.

    Raises:
        DataError: None of the pictures it was to be calibrated on can be read.
    """
    from vggtransfer.features.quantized_trunk import QuantizedTrunk

    dataset = HashedPictures(pictures, evaluation_transform(plan.image_size, crop_fraction=plan.crop_fraction))
    for_calibration, for_comparison = chosen_pictures(len(pictures))
    calibration = _batches(dataset, for_calibration, batch_size)
    if not calibration:
        raise DataError(
            f"none of the {len(for_calibration)} pictures for the calibration of int8 can be read; use fp32"
        )
    layers = tuple(plan.shapes)
    trunk: Trunk = QuantizedTrunk(encoder, layers, calibration)
    compared = _batches(dataset, for_comparison, batch_size)
    if not compared:
        print("int8: no pictures are left to compare with float32", file=sys.stderr)
        return trunk
    exact = FrozenTrunk(encoder, layers, device=torch.device("cpu"), compute_type=torch.float32)
    cosines = {layer: Tensor() for layer in layers}
    for batch in compared:
        expected, found = exact(batch), trunk(batch)
        for layer in layers:
            one, other = (pool_maps(maps[layer], plan.pool).flatten(1) for maps in (expected, found))
            cosines[layer] = torch.cat([cosines[layer], F.cosine_similarity(one, other, dim=1)])
    shown = "; ".join(f"{layer} mean {c.mean():.5f}, lowest {c.min():.5f}" for layer, c in cosines.items())
    count = len(next(iter(cosines.values())))
    print(f"int8: cosine to float32 on {count} pictures it was not calibrated on: {shown}", file=sys.stderr)
    return trunk


def chosen_pictures(count: int) -> tuple[list[int], list[int]]:
    """The numbers of the pictures for calibration and of those for comparison, out of `count`."""
    wanted = min(count, _CALIBRATION_PICTURES + _COMPARED_PICTURES)
    spread = [position * count // wanted for position in range(wanted)]
    return [index for place, index in enumerate(spread) if place % 3 < 2], spread[2::3]


def _batches(dataset: HashedPictures, indices: Sequence[int], batch_size: int) -> list[Tensor]:
    chunks = (indices[start : start + batch_size] for start in range(0, len(indices), batch_size))
    batches = (collate_hashed([dataset[0, index] for index in chunk]).pixels for chunk in chunks)
    return [pixels for pixels in batches if pixels is not None]

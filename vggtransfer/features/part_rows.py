"""The features of one part while they are computed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vggtransfer.errors import OptionError, WeightsError
from vggtransfer.features.extraction_plan import NUMPY_TYPES, ExtractionPlan
from vggtransfer.features.feature_parts import part_path, write_part
from vggtransfer.features.hashed_pictures import HashedBatch
from vggtransfer.features.pooling import pool_maps


class PartRows:
    """Collects batches until a part is full.

    Features stay on the device until then, so that the device need not wait for them batch by batch.

    Args:
        plan: Of the extraction.
        number: Of the part.
    """

    def __init__(self, plan: ExtractionPlan, number: int) -> None:
        self._plan = plan
        self._number = number
        self._type: torch.dtype = getattr(torch, NUMPY_TYPES[plan.store])
        self._rows: dict[str, list[Tensor]] = {layer: [] for layer in plan.shapes}
        self._finite: list[Tensor] = []
        self._indices: list[int] = []
        self._digests: list[bytes] = []
        self._bad: list[tuple[int, str]] = []

    def add(self, batch: HashedBatch, maps: dict[str, Tensor]) -> None:
        """Pools and keeps what was computed of a batch: one map [batch, channels, height, width] per layer, or none."""
        with torch.inference_mode():
            for layer, taps in maps.items():
                rows = pool_maps(taps, self._plan.pool)
                self._finite.append(rows.isfinite().all())
                self._rows[layer].append(rows.to(self._type))
        self._indices += batch.indices
        self._digests += batch.digests
        self._bad += batch.bad

    @property
    def is_full(self) -> bool:
        """Whether all pictures of the part have been added."""
        return len(self._indices) + len(self._bad) == len(self._plan.part_range(self._number))

    def write(self, folder: Path) -> None:
        """Writes the part into a folder.

        Raises:
            OptionError: Numbers are too large for the precision or the files.
            WeightsError: The encoder gives NaN in float32.
            OSError: The disk is full.
        """
        features = {
            layer: torch.cat(rows).cpu() if rows else torch.empty(0, *self._plan.shapes[layer], dtype=self._type)
            for layer, rows in self._rows.items()
        }
        self._check(features)
        write_part(
            part_path(folder, self._number),
            fingerprint=self._plan.fingerprint,
            features={layer: rows.numpy() for layer, rows in features.items()},
            indices=self._indices,
            digests=self._digests,
            bad=self._bad,
        )

    def _check(self, features: dict[str, Tensor]) -> None:
        precision = self._plan.precision
        if not all(finite.item() for finite in self._finite):
            if precision == "fp32":
                raise WeightsError("the encoder gives NaN or infinity; its weights are damaged, use others")
            raise OptionError(f"the encoder gives NaN or infinity in precision={precision}; use precision=fp32")
        for layer, rows in features.items():
            if not rows.isfinite().all():
                raise OptionError(f"{layer} has values above 65504, too large for store=fp16; use store=fp32")

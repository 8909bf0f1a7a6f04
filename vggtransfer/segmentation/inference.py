"""A trained network run over whole pictures, of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.data.decode import decode_image
from vggtransfer.data.resampling import Picture, resize
from vggtransfer.data.scan import BadPicture
from vggtransfer.encoder.precision import Precision, resolve_precision
from vggtransfer.errors import BadImageError, OptionError
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.segmentation.dataset import read_mask
from vggtransfer.segmentation.frozen_segmenter import FrozenSegmenter
from vggtransfer.segmentation.layouts import MaskedSample
from vggtransfer.segmentation.mask_coding import MaskCoding
from vggtransfer.segmentation.metrics import ConfusionMatrix, SegmentationScores
from vggtransfer.segmentation.model import TrainedSegmenter
from vggtransfer.segmentation.probabilities import masks, probabilities, with_mirror_image
from vggtransfer.segmentation.sliding_window import sliding_window
from vggtransfer.segmentation.view_names import TTA

_MOST_PIXELS = 4_000_000
_TILE = 1024
_OVERLAP = 0.25


def check_inference_options(*, tile: int | None, overlap: float | None) -> None:
    """Refuses tiles that cannot be, before the work.

    Raises:
        OptionError: A value out of range.
    """
    if tile is not None and tile < 32:
        raise OptionError(f"--tile {tile} is not possible: a tile has a side of at least 32 pixels")
    if overlap is not None and tile is None:
        raise OptionError(f"--overlap {overlap} would change nothing without --tile; leave it out")
    if overlap is not None and not 0 <= overlap <= 0.9:
        raise OptionError(f"--overlap {overlap} is not possible: use 0 to 0.9 of a tile's side")


class Painter:
    """Paints masks: a network, and how it is to look at pictures.

    Args:
        trained: The network; copied.
        device: Where to compute.
        precision: See `vggtransfer.encoder.precision.resolve_precision`.
        tta: See `TTA`.
        tile: Side of square tiles in pixels of the size at which the network sees pictures. None: the whole picture, or
            tiles of 1024 pixels where that has more than 4 million.
        overlap: Least part of a tile's side that it shares with its neighbour. None: a quarter.
    """

    def __init__(
        self,
        trained: TrainedSegmenter,
        *,
        device: torch.device,
        precision: Precision = "auto",
        tta: TTA = "none",
        tile: int | None = None,
        overlap: float | None = None,
    ) -> None:
        self.task, self.seen = trained.coding.task, trained.seen
        network = FrozenSegmenter(trained.model, device=device, compute_type=resolve_precision(precision, device))
        scorer = lambda pictures: probabilities(network(pictures), self.task)  # noqa: E731
        self._scorer = with_mirror_image(scorer) if tta == "flip" else scorer
        self._tile, self._overlap = tile, _OVERLAP if overlap is None else overlap

    def __call__(self, picture: Picture) -> Tensor:
        """Returns probabilities float32 [classes, height, width] of a picture uint8 RGB [height, width, 3]."""
        height, width = picture.shape[:2]
        seen = np.ascontiguousarray(resize(picture, *self.seen.of(height, width)).transpose(2, 0, 1))
        batch = torch.from_numpy(seen)[None]
        with torch.inference_mode():
            tile = _TILE if self._tile is None and seen[0].size > _MOST_PIXELS else self._tile
            if tile is None:
                scores = self._scorer(batch)
            else:
                scores = sliding_window(self._scorer, batch, tile=tile, overlap=self._overlap)
            if scores.shape[2:] != (height, width):
                scores = F.interpolate(scores, size=(height, width), mode="bilinear")
        return scores[0]


@dataclass(frozen=True)
class PaintedPicture:
    """A picture, its true mask and the one that was painted; masks as `read_mask` returns them.

    Attributes:
        sample: The files.
        scores: Of this picture alone.
    """

    sample: MaskedSample
    picture: Picture
    truth: NDArray[np.uint8]
    painted: NDArray[np.uint8]
    scores: SegmentationScores
    matrix: ConfusionMatrix


def painted_pictures(
    painter: Painter,
    samples: Sequence[MaskedSample],
    coding: MaskCoding,
    *,
    title: str,
    bad: list[BadPicture],
) -> Iterator[PaintedPicture]:
    """Paints pictures and compares them with their masks, one after the other.

    Args:
        painter: What paints.
        samples: Pictures and masks.
        coding: What the masks mean.
        title: Of the progress bar.
        bad: Gets what cannot be read (any more).
    """
    with ProgressBar(title, steps=len(samples), shown=True) as bar:
        for sample in samples:
            bar.advance()
            try:
                picture, truth = decode_image(sample.path), read_mask(sample, coding)
                if picture.shape[:2] != truth.shape[:2]:
                    raise BadImageError(f"{sample.path}: picture and mask have different sizes")
            except BadImageError as error:
                bad.append(BadPicture.of(sample.path, error))
                continue
            found = masks(painter(picture)[None], coding.task)
            matrix = ConfusionMatrix(len(coding.names), task=coding.task)
            target = torch.from_numpy(np.ascontiguousarray(truth)).to(found.device)
            matrix.add(found, (target.permute(2, 0, 1) if truth.ndim == 3 else target)[None])
            painted = found[0].to(torch.uint8).cpu().numpy()
            yield PaintedPicture(
                sample,
                picture,
                truth,
                painted.transpose(1, 2, 0) if painted.ndim == 3 else painted,
                matrix.scores(),
                matrix,
            )

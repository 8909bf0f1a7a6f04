"""Pictures too large for a network, or for the size it was trained at, scored in overlapping tiles."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vggtransfer.errors import OptionError
from vggtransfer.segmentation.probabilities import Scorer


def sliding_window(
    scorer: Scorer, pictures: Tensor, *, tile: int, overlap: float = 0.25, batch_size: int = 1
) -> Tensor:
    """Scores pictures tile by tile; where tiles overlap, their scores are averaged.

    A tile's weight falls linearly towards its sides, because a network knows least there; so no seams are left.

    Args:
        scorer: A network, or a function from pictures to scores of the same height and width; probabilities are
            better averaged than logits.
        pictures: [batch, channels, height, width].
        tile: Side of the square tiles in pixels; a shorter side of the pictures is taken whole.
        overlap: Least part of a tile's side that it shares with its neighbour, 0 to 0.9. Tiles are spread evenly.
        batch_size: Tiles that are scored together.

    Returns:
        Scores [batch, classes, height, width] in float32, on the device of the scorer's.

    Raises:
        OptionError: A number that cannot be used.
    """
    if tile < 1 or not 0 <= overlap <= 0.9 or batch_size < 1:
        raise OptionError(
            f"tile={tile}, overlap={overlap}, batch_size={batch_size} is not possible: "
            "use at least 1, 0 to 0.9, and at least 1"
        )
    height, width = (min(tile, side) for side in pictures.shape[2:])
    corners = [
        (row, column)
        for row in tile_starts(pictures.shape[2], height, overlap)
        for column in tile_starts(pictures.shape[3], width, overlap)
    ]
    total = weights = torch.empty(0)
    for number, picture in enumerate(pictures):
        for places in _groups(corners, batch_size):
            tiles = [picture[:, row : row + height, column : column + width] for row, column in places]
            scores = scorer(torch.stack(tiles)).float()
            if not total.numel():
                total = scores.new_zeros(len(pictures), scores.shape[1], *pictures.shape[2:])
                weights = scores.new_zeros(pictures.shape[2:])
                falloff = _hat(height).to(scores)[:, None] * _hat(width).to(scores)
            for (row, column), score in zip(places, scores, strict=True):
                window = (..., slice(row, row + height), slice(column, column + width))
                total[number][window] += score * falloff
                if number == 0:
                    weights[window] += falloff
    return total.div_(weights)


def tile_starts(side: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along a side: the fewest that cover it with at least that overlap, spread evenly."""
    step = max(1, int(tile * (1 - overlap)))
    steps = -(-(side - tile) // step)
    return [round(number * (side - tile) / steps) for number in range(steps + 1)] if steps else [0]


def _hat(length: int) -> Tensor:
    """Weights of a tile's pixels along one side: a triangle, nowhere zero."""
    return torch.minimum(torch.arange(1, length + 1), torch.arange(length, 0, -1)) / ((length + 1) // 2)


def _groups(corners: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(corners), size):
        yield corners[start : start + size]

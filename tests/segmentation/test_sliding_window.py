from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from vggtransfer.errors import OptionError
from vggtransfer.segmentation.sliding_window import sliding_window, tile_starts


@pytest.mark.parametrize(("side", "tile", "overlap"), [(10, 10, 0.5), (100, 30, 0.25), (101, 32, 0.0), (7, 3, 0.9)])
def test_tiles_cover_a_side_with_the_overlap_asked_for(side: int, tile: int, overlap: float) -> None:
    starts = tile_starts(side, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == side - tile
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(0 < step <= max(1, tile * (1 - overlap)) for step in steps)
    assert max(steps, default=0) - min(steps, default=0) <= 1


@pytest.mark.parametrize("size", [(20, 30), (64, 17), (16, 16)])
def test_a_scorer_that_looks_at_single_pixels_gives_the_same_in_tiles(size: tuple[int, int]) -> None:
    pictures = torch.rand(2, 3, *size)
    shapes = []

    def scorer(tiles: Tensor) -> Tensor:
        shapes.append(tuple(tiles.shape))
        return torch.cat([tiles, tiles.square()], dim=1).to(torch.float16)

    found = sliding_window(scorer, pictures, tile=16, overlap=0.3, batch_size=3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, scorer(pictures).float(), rtol=1e-3, atol=1e-3)
    assert all(len(shape) == 4 and shape[0] <= 3 and max(shape[2:]) <= 16 for shape in shapes[:-1])


def test_sides_of_tiles_weigh_less_than_their_middles() -> None:
    middles = torch.arange(20.0).expand(1, 1, 20, 20)

    def edges_are_wrong(tiles: Tensor) -> Tensor:
        scores = torch.zeros(len(tiles), 1, *tiles.shape[2:])
        scores[..., 0] = 1
        return scores

    found = sliding_window(edges_are_wrong, middles, tile=10, overlap=0.5)
    assert found[0, 0, 0, 0] == 1  # the picture's own side: nobody else knows better
    assert found[0, 0, 0, 5] < 0.2


@pytest.mark.parametrize("wrong", [{"tile": 0}, {"overlap": 0.95}, {"overlap": -0.1}, {"batch_size": 0}])
def test_wrong_numbers_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        sliding_window(lambda tiles: tiles, torch.rand(1, 3, 8, 8), **{"tile": 4, **wrong})

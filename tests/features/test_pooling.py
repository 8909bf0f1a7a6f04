from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vggtransfer.features.gem import GeM
from vggtransfer.features.pooling import PoolName, pool_maps, pooled_shape, rmac_regions

MAPS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 8.0]]]])  # [1, 2, 2, 2]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("gap", [2.5, 2.0]),
        ("max", [4.0, 8.0]),
        ("gem", [((1 + 8 + 27 + 64) / 4) ** (1 / 3), (512 / 4) ** (1 / 3)]),
    ],
)
def test_known_answers(pool: PoolName, expected: list[float]) -> None:
    assert pool_maps(MAPS, pool)[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert pooled_shape((2, 2, 2), pool) == (2,)


def paper_spoc(x: np.ndarray) -> np.ndarray:
    """Babenko & Lempitsky 2015, equation 4, divided by the number of places."""
    return np.array([sum(channel.flat) / channel.size for channel in x])


def paper_mac(x: np.ndarray) -> np.ndarray:
    """Tolias et al. 2016, equation 1."""
    return np.array([max(channel.flat) for channel in x])


def paper_gem(x: np.ndarray) -> np.ndarray:
    """Radenovic et al. 2018, equation 3."""
    return np.array([(sum(value**3 for value in channel.flat) / channel.size) ** (1 / 3) for channel in x])


def paper_rmac(x: np.ndarray) -> np.ndarray:
    """Tolias et al. 2016, section 3.3; the grid as in the words of the paper: regions spread evenly over the map."""
    _, height, width = x.shape
    # More along the long side, so that the overlap is nearest to 40 %: at 6 x 12 with three squares it is 50 %.
    more_rows, more_columns = {(7, 7): (0, 0), (6, 12): (0, 2), (9, 6): (1, 0)}[height, width]
    total = np.zeros(len(x))
    for level in (1, 2, 3):
        side = math.floor(2 * min(height, width) / (level + 1))
        rows, columns = level + more_rows, level + more_columns
        for row in range(rows):
            for column in range(columns):
                top = math.floor(row * (height - side) / (rows - 1)) if rows > 1 else 0
                left = math.floor(column * (width - side) / (columns - 1)) if columns > 1 else 0
                region = x[:, top : top + side, left : left + side].max(axis=(1, 2))
                total += region / np.linalg.norm(region)
    return total


def paper_crow(x: np.ndarray) -> np.ndarray:
    """Kalantidis et al. 2016, equations 2 to 5 with a = b = 2 and epsilon 1e-6."""
    channels, height, width = x.shape
    summed = sum(x[k] for k in range(channels))
    s = (summed / (summed**2).sum() ** (1 / 2)) ** (1 / 2)
    q = [(x[k] > 0).sum() / (height * width) for k in range(channels)]
    i = [math.log((channels * 1e-6 + sum(q)) / (1e-6 + q[k])) for k in range(channels)]
    return np.array([i[k] * (s * x[k]).sum() for k in range(channels)])


PAPERS = {"gap": paper_spoc, "max": paper_mac, "gem": paper_gem, "rmac": paper_rmac, "crow": paper_crow}


@pytest.mark.parametrize("pool", PAPERS)
@pytest.mark.parametrize("size", [(7, 7), (6, 12), (9, 6)])
def test_poolings_are_the_formulas_of_their_papers_in_double_precision(pool: PoolName, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(3)
    maps = np.maximum(generator.standard_normal((2, 5, *size)), 0).astype(np.float32)
    maps[:, 4] = 0  # a channel that nothing activates
    expected = np.stack([PAPERS[pool](picture.astype(np.float64)) for picture in maps])
    np.testing.assert_allclose(pool_maps(torch.from_numpy(maps), pool), expected, rtol=1e-5, atol=2e-6)


def test_regions_of_rmac_in_small_maps_are_whole_places() -> None:
    assert rmac_regions(1, 1) == [(0, 0, 1)]
    assert rmac_regions(2, 2) == [
        (0, 0, 2),
        *((row, column, 1) for row in (0, 1) for column in (0, 1)),
        *((row, column, 1) for row in (0, 0, 1) for column in (0, 0, 1)),
    ]


def test_trainable_gem_is_gem_and_its_exponent_has_the_right_gradient() -> None:
    maps = torch.rand(2, 3, 4, 4, dtype=torch.float64) + 0.1
    pooling = GeM(2.5)
    assert torch.allclose(pooling(maps), pool_maps(maps, "gem", exponent=2.5))
    pooling(maps).sum().backward()
    higher, lower = ((maps**p).mean(dim=(2, 3)) ** (1 / p) for p in (2.5 + 1e-4, 2.5 - 1e-4))
    assert pooling.exponent.grad == pytest.approx(((higher - lower).sum() / 2e-4).item(), rel=1e-3)
    assert GeM(channels=3)(maps).shape == (2, 3)


def test_no_pooling_keeps_the_map() -> None:
    assert torch.equal(pool_maps(MAPS, "none"), MAPS)
    assert pooled_shape((2, 5, 4), "none") == (2, 5, 4)


@pytest.mark.parametrize("pool", ["gem", "crow"])
def test_negative_values_count_as_zero_and_nothing_stays_finite(pool: PoolName) -> None:
    assert pool_maps(torch.full((1, 1, 2, 2), -3.0), pool).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("pool", ["gap", "max", "gem", "none"])
def test_sums_are_in_float32_whatever_the_maps_are(pool: PoolName) -> None:
    # 64 x 64 places of 100: their sum is beyond float16, the sum of their cubes beyond it by far.
    maps = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)
    pooled = pool_maps(maps, pool)
    assert pooled.dtype == torch.float32
    assert pooled.flatten()[0].item() == pytest.approx(100, rel=1e-5)

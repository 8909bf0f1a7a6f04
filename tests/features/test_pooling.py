from __future__ import annotations

import pytest
import torch

from vggtransfer.features.pooling import PoolName, pool_maps, pooled_shape

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


def test_no_pooling_keeps_the_map() -> None:
    assert torch.equal(pool_maps(MAPS, "none"), MAPS)
    assert pooled_shape((2, 5, 4), "none") == (2, 5, 4)


def test_gem_takes_negative_values_for_zero_and_stays_finite() -> None:
    assert pool_maps(torch.full((1, 1, 2, 2), -3.0), "gem").item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("pool", ["gap", "max", "gem", "none"])
def test_sums_are_in_float32_whatever_the_maps_are(pool: PoolName) -> None:
    # 64 x 64 places of 100: their sum is beyond float16, the sum of their cubes beyond it by far.
    maps = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16)
    pooled = pool_maps(maps, pool)
    assert pooled.dtype == torch.float32
    assert pooled.flatten()[0].item() == pytest.approx(100, rel=1e-5)

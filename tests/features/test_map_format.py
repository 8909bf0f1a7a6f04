from __future__ import annotations

import pytest
import torch

from vggtransfer.features.map_format import MapFormat, storage_of


@pytest.mark.parametrize("shape", [(6, 5, 4), (7,)])
@pytest.mark.parametrize(("storage", "compute"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_compute_types_own_format_loses_nothing(storage, compute, shape) -> None:
    assert storage_of(compute) == storage
    maps = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).to(compute)
    kept = MapFormat(shape, storage)
    rows = kept.encode(maps)
    assert rows.dtype == torch.uint8
    assert rows.shape == (3, kept.row_bytes)
    assert torch.equal(kept.decode(rows, compute), maps)


def test_maps_come_back_in_channels_last_layout() -> None:
    kept = MapFormat((6, 5, 4), "bf16")
    maps = kept.decode(kept.encode(torch.randn(2, 6, 5, 4)), torch.bfloat16)
    assert maps.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(6, 5, 4), (3, 2, 2), (40,)])
def test_int8_is_half_a_step_off_at_most(shape) -> None:
    maps = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)) * 3
    kept = MapFormat(shape, "int8")
    rows = kept.encode(maps)
    assert rows.shape == (4, kept.row_bytes)
    back = kept.decode(rows, torch.float32)
    per_channel = maps.flatten(2) if maps.dim() == 4 and shape[1] * shape[2] >= 16 else maps.flatten(1)
    steps = (per_channel.amax(-1) - per_channel.amin(-1)) / 255
    error = (back - maps).abs()
    largest = error.flatten(2).amax(-1) if per_channel.dim() == 3 else error.flatten(1).amax(-1)
    assert (largest <= steps * 0.501 + 1e-6).all()
    assert error.max() > 0


def test_int8_keeps_constant_maps_and_zeros() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    maps[1, 2] = -1.5
    kept = MapFormat((3, 4, 4), "int8")
    assert torch.equal(kept.decode(kept.encode(maps), torch.float32), maps)


def test_int8_takes_half_the_space_of_bfloat16() -> None:
    shape = (512, 14, 14)
    assert MapFormat(shape, "bf16").row_bytes == 200_704
    assert MapFormat(shape, "int8").row_bytes == pytest.approx(100_352, rel=0.05)

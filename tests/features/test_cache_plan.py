from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vggtransfer.features.cache_plan import Work, decide, shown_bytes

# VGG16 at 224 pixels with block5 training, as the paper's table of layers has it.
WORK = Work(
    epochs=10,
    train_pictures=4000,
    validation_pictures=1000,
    squares=1,
    square_scale=1.0,
    frozen_macs=13_959_364_608,
    other_macs=1_387_266_048,
    bytes=5000 * 200_704,
)
ROOM: dict[str, Any] = {
    "kept": 0.0,
    "free_memory": 16 * 10**9,
    "free_disk": 20 * 10**9,
    "shared": True,
    "processes": 1,
}


def test_gain_counts_the_arithmetic() -> None:
    forward, rest = WORK.frozen_macs, WORK.other_macs
    uncached = 10 * (5000 * forward + (3 * 4000 + 1000) * rest)
    cached = 5000 * forward + 10 * (3 * 4000 + 1000) * rest
    assert WORK.gain() == pytest.approx(uncached / cached)
    assert 3.5 < WORK.gain() < 3.6
    assert WORK.gain(kept=1.0) == pytest.approx(uncached / (10 * 13_000 * rest))
    assert replace(WORK, squares=2).gain() < WORK.gain()
    assert replace(WORK, epochs=1, squares=8).gain() < 1


def test_disk_before_memory_before_none() -> None:
    assert decide("auto", WORK, **ROOM).where == "disk"
    assert decide("auto", WORK, **{**ROOM, "free_disk": 10**9}).where == "memory"
    assert decide("auto", WORK, **{**ROOM, "free_disk": 10**9, "processes": 2}).where == "off"
    assert decide("auto", WORK, **{**ROOM, "free_disk": 10**9, "free_memory": 10**9}).where == "off"
    assert decide("auto", WORK, **{**ROOM, "free_disk": 10**8, "kept": 0.95}).where == "disk"


def test_little_gain_is_left_alone_unless_asked_for() -> None:
    little = replace(WORK, epochs=2, squares=2)
    assert decide("auto", little, **ROOM).where == "off"
    assert decide("disk", little, **ROOM).where == "disk"
    assert decide("memory", little, **ROOM).where == "memory"


def test_what_was_asked_for_says_why_it_cannot_be() -> None:
    refused = decide("disk", WORK, **{**ROOM, "free_disk": 5 * 10**8})
    assert refused.where == "off"
    assert "1.0 GB of maps have no room (500 MB may be added on disk, see --cache-size)" in refused.reason
    apart = {**ROOM, "shared": False, "processes": 2}
    assert decide("auto", WORK, **apart).where == "off"
    assert "VGGTRANSFER_CACHE is not a folder that all machines share" in decide("disk", WORK, **apart).reason
    assert "memory serves a single process only" in decide("memory", WORK, **{**ROOM, "processes": 2}).reason


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 bytes"), (1000, "1.0 kB"), (123_456, "123 kB"), (2.5e9, "2.5 GB"), (3e13, "30.0 TB")]
)
def test_bytes_are_shown_in_a_fitting_unit(count: float, text: str) -> None:
    assert shown_bytes(count) == text

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vggtransfer.data import loader as loader_module
from vggtransfer.data.cores import usable_cores
from vggtransfer.data.loader import (
    Batches,
    network_input,
    ordered_batches,
    picture_loader,
    resolve_workers,
    shared_batches,
)

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


class Keys(Dataset[Any]):
    """Each sample tells its key and the process that made it."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, index = key
        return torch.full((3, 2, 2), epoch, dtype=torch.uint8), os.getpid(), index


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 12, 13])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_ordered_batches_visit_each_sample_once_over_all_processes(count: int, batch_size: int, processes: int) -> None:
    by_rank = [ordered_batches(count, batch_size, rank=rank, processes=processes) for rank in range(processes)]
    visited = Counter(index for batches in by_rank for batch in batches for _, index in batch)
    assert visited == Counter(range(count))
    for batches in by_rank:
        indices = [index for batch in batches for _, index in batch]
        assert indices == sorted(indices)
        assert all(0 < len(batch) <= batch_size for batch in batches)
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert {epoch for batch in batches for epoch, _ in batch} <= {0}
    sizes = [sum(map(len, batches)) for batches in by_rank]
    assert max(sizes) - min(sizes) <= 1


def test_ordered_batches_of_one_process_are_in_order() -> None:
    assert ordered_batches(5, 2) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]
    assert ordered_batches(5, 2, rank=1, processes=2) == [[(0, 1), (0, 3)]]


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(1, 1, 1), (4, 1, 4), (64, 1, 8), (16, 4, 4), (4, 8, 1), (64, 4, 8)]
)
def test_workers_beside_a_gpu_share_the_cores(
    cores: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "usable_cores", lambda: cores)
    assert resolve_workers(None, device=GPU, processes=processes) == expected
    assert resolve_workers(None, device=CPU, processes=processes) == 1


@pytest.mark.parametrize("device", [CPU, GPU])
def test_workers_that_are_asked_for_are_taken(device: torch.device) -> None:
    for workers in (0, 3, 50):
        assert resolve_workers(workers, device=device, processes=2) == workers


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processes that can be bound to cores")
def test_usable_cores_are_those_of_this_process() -> None:
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("channels_last", [True, False])
def test_network_input_divides_by_255_in_the_layout_asked_for(channels_last: bool) -> None:
    pictures = torch.arange(2 * 3 * 8 * 16, dtype=torch.int32).remainder(256).to(torch.uint8).view(2, 3, 8, 16)
    before = pictures.clone()
    images = network_input(pictures, CPU, channels_last=channels_last)
    assert images.dtype == torch.float32
    assert torch.equal(images, before.float() / 255)
    assert (float(images.min()), float(images.max())) == (0, 1)
    assert images.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert images.is_contiguous() != channels_last
    assert torch.equal(pictures, before)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_loaded_as_they_are_assigned(workers: int) -> None:
    batches = Batches([[(0, 4), (0, 1)], [(0, 0)]])
    loader = picture_loader(Keys(), batches, workers=workers)
    assert len(loader) == 2
    first = list(loader)
    assert [indices.tolist() for _, _, indices in first] == [[4, 1], [0]]
    batches.keys = [[(7, 3)], [(7, 5), (7, 6)], [(8, 2)]]
    assert len(loader) == 3
    second = list(loader)
    assert [indices.tolist() for _, _, indices in second] == [[3], [5, 6], [2]]
    assert [pictures.unique().tolist() for pictures, _, _ in second] == [[7], [7], [8]]
    processes = [{int(pid) for _, pids, _ in epoch for pid in pids} for epoch in (first, second)]
    if workers:
        assert os.getpid() not in processes[0] | processes[1]
        assert processes[0] == processes[1]  # they outlive an epoch
    else:
        assert processes == [{os.getpid()}] * 2


def test_collate_may_make_something_else() -> None:
    loader = picture_loader(Keys(), Batches([[(0, 4), (0, 1)]]), workers=0, collate=len)
    assert list(loader) == [2]


@pytest.mark.skipif(os.name == "nt", reason="Windows ends processes without asking them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_workers_outlive_signals_to_the_group(number: signal.Signals) -> None:
    loader = picture_loader(Keys(), Batches([[(0, index)] for index in range(12)]), workers=1)
    iterator = iter(loader)
    _, pids, _ = next(iterator)
    os.kill(int(pids[0]), number)
    time.sleep(0.2)
    rest = list(iterator)
    assert [int(indices[0]) for _, _, indices in rest] == list(range(1, 12))
    # The signal came long before the last of these was made.
    assert [int(each[0]) for _, each, _ in loader] == [int(pids[0])] * 12


def test_only_samples_of_one_kind_share_a_batch() -> None:
    kinds = ["wide", "tall", "wide", "wide", "tall"]
    assert ordered_batches(5, 2, kinds=kinds) == [[(0, 0), (0, 2)], [(0, 3)], [(0, 1), (0, 4)]]
    assert shared_batches(5, 2, processes=2, kinds=kinds) == [[[(0, 0), (0, 2)], [(0, 4)]], [[(0, 1)], [(0, 3)]]]

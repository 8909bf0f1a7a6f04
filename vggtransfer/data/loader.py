"""From a data set to batches in this process, in an order that is decided here and nowhere else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vggtransfer.data.cores import usable_cores

Key = tuple[int, int]
"""(epoch, index): which sample, and which draw of its augmentation."""


class Batches(Sampler[list[Key]]):
    """The batches of the next pass; assign `keys` before each iteration over the loader.

    Passing the epoch along with the index keeps worker processes stateless: they can outlive an epoch.
    """

    def __init__(self, keys: Sequence[list[Key]] = ()) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def ordered_batches(
    count: int, batch_size: int, *, rank: int = 0, processes: int = 1, kinds: Sequence[Hashable] | None = None
) -> list[list[Key]]:
    """Batches that visit every sample exactly once over all processes, for evaluation.

    They come in order; with `kinds`, one value per sample, a batch holds samples of one kind only, and the kinds come
    in the order of their first samples.
    """
    groups: dict[Hashable, list[Key]] = {}
    for index in range(rank, count, processes):
        groups.setdefault(None if kinds is None else kinds[index], []).append((0, index))
    return [
        group[start : start + batch_size] for group in groups.values() for start in range(0, len(group), batch_size)
    ]


def shared_batches(
    count: int, batch_size: int, *, processes: int, kinds: Sequence[Hashable] | None = None
) -> list[list[list[Key]]]:
    """The `ordered_batches` of each process."""
    return [
        ordered_batches(count, batch_size, rank=rank, processes=processes, kinds=kinds) for rank in range(processes)
    ]


def picture_loader(
    dataset: Dataset[Any],
    batches: Batches,
    *,
    workers: int,
    pin_memory: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Loads the given batches.

    Returns:
        A loader of (pictures uint8 [batch, 3, height, width], labels [batch], indices [batch]), or of what `collate`
        makes of the list of a batch's samples.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=_outlive_signals_to_the_group,
    )


def _outlive_signals_to_the_group(_worker: int) -> None:
    # Ctrl-C, and SIGTERM from torchrun or a batch system, reach the whole process group. A worker that died of them
    # would break the step that the main process is about to finish and save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(10))


def stop_workers(loader: DataLoader[Any]) -> None:
    """Ends the worker processes of a loader at once.

    They end by themselves with the last reference to their iterator, but after an exception its traceback holds one,
    and the interpreter would wait for them at exit.
    """
    shut_down = getattr(loader._iterator, "_shutdown_workers", None)  # torch has no public way
    if shut_down is not None:
        shut_down()
        loader._iterator = None


def resolve_workers(workers: int | None, *, device: torch.device, processes: int = 1) -> int:
    """Number of loader processes; None chooses: one per free core up to 8 beside a GPU, one beside a CPU.

    On a CPU the arithmetic uses every core already, and one process is enough to overlap reading with it.
    """
    if workers is not None:
        return workers
    if device.type == "cpu":
        return 1
    return max(1, min(8, usable_cores() // processes))


def network_input(batch: Tensor, device: torch.device, *, channels_last: bool) -> Tensor:
    """Moves a batch [batch, channels, height, width] to a device; bytes travel, floats are made there.

    Returns:
        Pictures in uint8 become float32 in [0, 1]; floats, among them maps of a frozen part, stay what they are.
    """
    layout = torch.channels_last if channels_last and batch.dim() == 4 else torch.contiguous_format
    moved = batch.to(device, non_blocking=True)
    if moved.dtype == torch.uint8:
        return moved.to(torch.float32, memory_format=layout).div_(255)
    return moved.contiguous(memory_format=layout)

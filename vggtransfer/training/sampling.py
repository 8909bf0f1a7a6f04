"""Which samples make which step: a pure function of seed and epoch, so that a resumed run sees the same ones."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from vggtransfer.data.loader import Key
from vggtransfer.errors import OptionError


def keyed_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, for example ("dropout", seed, epoch, step, rank)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def epoch_order(count: int, *, seed: int, epoch: int, weights: Tensor | None = None) -> list[int]:
    """The samples of one epoch: a permutation, or with `weights` [count] as many independent weighted draws."""
    generator = torch.Generator().manual_seed(keyed_seed("order", seed, epoch))
    if weights is None:
        order = torch.randperm(count, generator=generator)
    else:
        order = torch.multinomial(weights, count, replacement=True, generator=generator)
    indices: list[int] = order.tolist()
    return indices


def epoch_passes(order: list[int], *, epoch: int, size: int, rank: int, processes: int) -> list[list[Key]]:
    """This process's share of the full passes over `order`: every `processes`-th sample of each, `size` of them."""
    together = size * processes
    return [
        [(epoch, index) for index in order[start + rank : start + together : processes]]
        for start in range(0, len(order) - together + 1, together)
    ]


def batch_geometry(count: int, *, batch_size: int, accumulate: int, processes: int) -> tuple[int, int]:
    """Returns (pictures per process and pass, optimizer steps per epoch).

    `batch_size` counts the pictures of all processes together, so a recipe means the same on any number of them. The
    remainder that does not fill a step is left out, other pictures in each epoch; a data set smaller than one batch
    makes one step of all its pictures.

    Raises:
        OptionError: Numbers that cannot be met.
    """
    if batch_size % processes:
        raise OptionError(f"--batch-size {batch_size} cannot be shared equally by {processes} processes")
    if count < batch_size * accumulate:
        if accumulate > 1:
            raise OptionError(
                f"--batch-size {batch_size} times --accumulate {accumulate} is more than the {count} training pictures"
            )
        batch_size = count // processes * processes
    if batch_size == 0:
        raise OptionError(f"{count} training pictures cannot be shared by {processes} processes")
    return batch_size // processes, count // (batch_size * accumulate)

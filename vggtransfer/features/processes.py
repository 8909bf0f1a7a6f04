"""Which part of a job is this process's own, as torchrun and batch systems say it in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vggtransfer.errors import OptionError


@dataclass(frozen=True)
class Share:
    """This process among those that work on the same job.

    Attributes:
        rank: Its number among all of them, from 0.
        processes: How many there are.
        local_rank: Its number among those on this machine.
        local_processes: How many there are on this machine.
    """

    rank: int = 0
    processes: int = 1
    local_rank: int = 0
    local_processes: int = 1


def share_of_work() -> Share:
    """Reads RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; without them there is one process.

    Nothing is set up between the processes: they need not run at the same time.

    Raises:
        OptionError: RANK without WORLD_SIZE or the other way round, or numbers that do not fit.
    """
    rank, processes = _number("RANK"), _number("WORLD_SIZE")
    if rank is None and processes is None:
        return Share()
    if rank is None or processes is None or not 0 <= rank < processes:
        found = " ".join(f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE") if os.environ.get(name))
        raise OptionError(f"{found} in the environment is not possible: set both, RANK from 0 to WORLD_SIZE - 1")
    return Share(rank, processes, _number("LOCAL_RANK") or 0, _number("LOCAL_WORLD_SIZE") or 1)


def _number(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise OptionError(f"{name}={text} in the environment is not a whole number; correct or unset it")
    return int(text)

"""Arms of a benchmark, timed in turn in one process, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

ROUNDS = 7


@dataclass(frozen=True)
class Measurement:
    """Two arms that do the same work.

    Attributes:
        what: The work.
        peer: The other way of doing it.
        goal: How many times as fast ours is to be.
        ours: Seconds of each round.
        theirs: Seconds of each round.
        operations: Multiply-adds counted twice, of our arm.
        rate: Operations per second that our arm's number format reaches in a large matrix product here; 0 if unknown.
            It is no upper limit: on some CPUs the library for convolutions is the faster one.
        note: What the results have in common, or how they differ.
    """

    what: str
    peer: str
    goal: float | None
    ours: Sequence[float]
    theirs: Sequence[float]
    operations: float = 0.0
    rate: float = 0.0
    note: str = ""

    @property
    def median_ratio(self) -> float:
        return statistics.median(self.theirs) / statistics.median(self.ours)

    @property
    def minimum_ratio(self) -> float:
        return min(self.theirs) / min(self.ours)

    @property
    def part_of_matrix_product(self) -> float | None:
        if not self.operations or not self.rate:
            return None
        return self.operations / min(self.ours) / self.rate


def interleave(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int = ROUNDS, warm_up: bool = True
) -> tuple[list[float], list[float]]:
    """Seconds of each round of two arms, each first in every other round."""
    if warm_up:
        ours()
        theirs()
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        for arm in order:
            began = time.perf_counter()
            (ours, theirs)[arm]()
            seconds[arm].append(time.perf_counter() - began)
    return seconds


def matrix_rate(compute_type: torch.dtype) -> float:
    """Operations per second of a large square matrix product on this CPU."""
    side = 4096
    if compute_type == torch.int8:
        one, other = (torch.randint(-128, 127, (side, side), dtype=torch.int8) for _ in range(2))
        product = torch._int_mm  # torch has no public one
    else:
        one, other = (torch.randn(side, side).to(compute_type) for _ in range(2))
        product = torch.mm
    product(one, other)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        product(one, other)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def show(measurements: Sequence[Measurement]) -> None:
    """Prints the table as Markdown, with what the machine was doing."""
    print(
        f"\n{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}; {len(measurements[0].ours)} rounds, arms in turn\n"
    )
    print("| what | peer in the same process | times as fast: median | minimum | goal | of a matrix product |")
    print("| --- | --- | --- | --- | --- | --- |")
    for m in measurements:
        goal = "" if m.goal is None else f"{m.goal:g}"
        part = "" if m.part_of_matrix_product is None else f"{m.part_of_matrix_product:.0%}"
        print(f"| {m.what} | {m.peer} | {m.median_ratio:.2f} | {m.minimum_ratio:.2f} | {goal} | {part} |")
    for m in measurements:
        if m.note:
            print(f"\n{m.what}: {m.note}")

"""Pictures in batches, of which the next one is being read while a network looks at this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Given = TypeVar("_Given")
_Read = TypeVar("_Read")


def read_ahead(
    given: Sequence[_Given], read: Callable[[_Given], _Read], *, batch_size: int, workers: int
) -> Iterator[list[_Read]]:
    """Yields what `read` makes of each, in their order; it runs in threads, and what it raises is raised here."""
    with ThreadPoolExecutor(workers) as pool:
        coming: list[Future[_Read]] = []
        try:
            for start in range(0, len(given) + batch_size, batch_size):
                current = coming
                coming = [pool.submit(read, one) for one in given[start : start + batch_size]]
                if current:
                    yield [future.result() for future in current]
        finally:
            for future in coming:
                future.cancel()

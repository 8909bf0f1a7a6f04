"""The best of a search in another order, by what the rest of the collection tells of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.expansion import augment_vectors
from vggtransfer.retrieval.reranking import k_reciprocal_distances

_AUGMENTED = 100
"""How many of the best are augmented, if no more are asked for: each needs a search of its own."""


@dataclass(frozen=True)
class Refinement:
    """What to do with the best of a search.

    Attributes:
        augment: Compare each with the query after it was joined with its own nearest pictures, so many in all, itself
            included (database-side augmentation); 0: as it is.
        rerank: Order so many of the best by k-reciprocal re-ranking; 0: none.

    Raises:
        OptionError: A number is negative.
    """

    augment: int = 0
    rerank: int = 0

    def __post_init__(self) -> None:
        for name, value in (("augment", self.augment), ("rerank", self.rerank)):
            if value < 0:
                raise OptionError(f"{name}={value} is not possible: it must be at least 0")

    def __bool__(self) -> bool:
        return self.augment > 0 or self.rerank > 0

    @property
    def depth(self) -> int:
        """How many of the best it looks at."""
        return max(self.rerank, _AUGMENTED if self.augment else 0)

    def order(
        self,
        query: NDArray[np.float32],
        found: NDArray[np.int64],
        *,
        vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        nearest: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        without: int = -1,
    ) -> NDArray[np.intp]:
        """Tells the new order of what a search found.

        Args:
            query: Unit vector [dimension].
            found: Numbers of pictures, the best first, [n]; those behind `depth` stay where they are.
            vectors_of: Gives the unit vectors of some numbers, a new array.
            nearest: Gives the `augment` + 1 nearest of some numbers, themselves among them; -1 for none.
            without: The number of the query, if it is in the collection, which must not take part in augmenting.

        Returns:
            Places in `found`, the best first, [n].

        Raises:
            OptionError: The collection is too small to augment so far.
        """
        head = found[: self.depth]
        if not len(head):
            return np.arange(len(found))
        vectors = self._augmented(head, vectors_of, nearest, without) if self.augment else vectors_of(head)
        order = np.argsort(-(vectors @ query), kind="stable")
        if self.rerank:
            best = order[: self.rerank]
            distances = k_reciprocal_distances(query[None], vectors[best])[0]
            order = np.concatenate([best[np.argsort(distances, kind="stable")], order[self.rerank :]])
        return np.concatenate([order, np.arange(len(head), len(found))])

    def _augmented(
        self,
        numbers: NDArray[np.int64],
        vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        nearest: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        without: int,
    ) -> NDArray[np.float32]:
        near = nearest(numbers)
        known = np.unique(np.concatenate([numbers, near.ravel()]))
        vectors = vectors_of(np.where(known < 0, numbers[0], known))
        vectors[(known < 0) | (known == without)] = 0
        return augment_vectors(
            vectors, np.searchsorted(known, near), count=self.augment, of=np.searchsorted(known, numbers)
        )

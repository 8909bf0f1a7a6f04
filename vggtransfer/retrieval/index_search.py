"""Searching one generation of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import OptionError, did_you_mean
from vggtransfer.retrieval.exact_neighbours import exact_neighbours
from vggtransfer.retrieval.expansion import expand_queries
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.index_state import IndexState
from vggtransfer.retrieval.neighbours import Neighbour
from vggtransfer.retrieval.refinement import Refinement

_ALPHA = 3.0

_FEW_ROWS = 20_000
"""Among so few vectors an exact search is quick, and no approximate one can miss those that a filter leaves."""


class IndexSearch:
    """Answers from vectors to pictures; safe to use from several threads.

    Args:
        state: The generation.
    """

    def __init__(self, state: IndexState) -> None:
        self.state = state
        self._positions = state.table.positions_by_row(len(state.vectors))
        self._labels = np.array(state.table.labels, object)
        self._live = None if len(state.table) == len(state.vectors) else self._positions >= 0

    @property
    def labels(self) -> dict[str, int]:
        """Pictures by label, sorted; those without one under ''."""
        names, counts = np.unique(self._labels.astype(str), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def position(self, id: int) -> int:  # noqa: A002
        """Where the item with an id stands.

        Raises:
            OptionError: No picture has it.
        """
        position = self.state.table.position(id)
        if position is None:
            raise OptionError(f"{self.state.folder.path} has no picture with the id {id}")
        return position

    def neighbours(
        self, queries: NDArray[np.float32], *, k: int, label: str | None, refinement: Refinement | None = None
    ) -> list[list[Neighbour]]:
        """The k nearest pictures of each of some (whitened) vectors [queries, dimension].

        Raises:
            OptionError: k is below 1, or no picture has the label.
        """
        if k < 1:
            raise OptionError(f"k={k} is not possible: it must be at least 1")
        wanted = k if refinement is None else max(k, refinement.depth)
        scores, rows = self.rows(queries, k=wanted, allowed=self._allowed(label))
        if refinement:
            orders = np.stack(
                [self.refined(query, of_query, refinement) for query, of_query in zip(queries, rows, strict=True)]
            )
            scores, rows = np.take_along_axis(scores, orders, axis=1), np.take_along_axis(rows, orders, axis=1)
        scores, rows = scores[:, :k], rows[:, :k]
        return [
            [self._neighbour(row, score) for score, row in zip(*of_query, strict=True) if row >= 0]
            for of_query in zip(scores.tolist(), rows.tolist(), strict=True)
        ]

    def rows(
        self, queries: NDArray[np.float32], *, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows, as of `VectorIndex.search`; among the rows of all pictures if none are given."""
        vectors = self.state.vectors
        allowed = self._live if allowed is None else allowed
        if allowed is not None and not self.state.index.kind.is_exact and allowed.sum() <= _FEW_ROWS:
            among = np.flatnonzero(allowed)
            scores = queries @ vectors[among].T
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(scores, order, axis=1), among[order]
        return self.state.index.search(queries, k=k, vectors=vectors, allowed=allowed)

    def expanded(self, queries: NDArray[np.float32], *, count: int) -> NDArray[np.float32]:
        """Queries joined with their nearest pictures; see `expand_queries`.

        Raises:
            OptionError: The count is below 1.
        """
        if count < 1:
            raise OptionError(f"expand={count} is not possible: it must be at least 0")
        _, rows = self.rows(queries, k=min(count, len(self.state.table)))
        found, places = np.unique(rows, return_inverse=True)
        vectors = self.state.vectors[found]
        vectors[found < 0] = 0  # where a search through few lists found less: adds nothing
        return expand_queries(queries, vectors, places.reshape(rows.shape), count=rows.shape[1], alpha=_ALPHA)

    def refined(self, query: NDArray[np.float32], rows: NDArray[np.int64], refinement: Refinement) -> NDArray[np.intp]:
        """The new order of the rows that a (whitened) query has found, -1 for none; see `Refinement.order`."""
        vectors = self.state.vectors
        there, missing = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        order = refinement.order(
            query,
            rows[there],
            vectors_of=lambda numbers: vectors[numbers],
            nearest=lambda numbers: self.rows(vectors[numbers], k=refinement.augment + 1)[1],
        )
        return np.concatenate([there[order], missing])

    def exact_rows(self, queries: NDArray[np.float32], *, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As `rows` among all pictures, by comparing with every one."""
        return exact_neighbours(self.state.vectors, queries, k=k, allowed=self._live)

    def _allowed(self, label: str | None) -> NDArray[np.bool_] | None:
        if label is None:
            return None
        chosen = self._labels == label
        if not chosen.any():
            path = self.state.folder.path
            raise OptionError(f"no picture of {path} has the label '{label}'{did_you_mean(label, self.labels)}")
        allowed = np.zeros(len(self.state.vectors), bool)
        allowed[self.state.table.rows[chosen]] = True
        return allowed

    def _neighbour(self, row: int, score: float) -> Neighbour:
        item = self.state.table.item(int(self._positions[row]), self.state.data)
        return Neighbour(item.id, item.path, item.label, score)


class Items(Sequence[Item]):
    """The pictures of an index, each made when it is asked for."""

    def __init__(self, state: IndexState) -> None:
        self._state = state

    def __len__(self) -> int:
        return len(self._state.table)

    @overload
    def __getitem__(self, position: int) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> list[Item]: ...
    def __getitem__(self, position: int | slice) -> Item | list[Item]:
        places = range(len(self))[position]
        table, data = self._state.table, self._state.data
        return table.item(places, data) if isinstance(places, int) else [table.item(place, data) for place in places]

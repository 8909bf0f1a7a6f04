"""Query expansion and database-side augmentation: vectors made steadier by their own neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.whitening import unit_rows


def expand_queries(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    neighbours: NDArray[np.int64],
    *,
    count: int = 10,
    alpha: float = 0.0,
) -> NDArray[np.float32]:
    """Adds to each query its best neighbours; searching again with the result finds more of the same.

    Args:
        queries: Unit vectors, float32 [queries, features].
        vectors: Those of the collection, unit vectors, float32 [n, features].
        neighbours: Rows of `vectors` that the search found, the best first, [queries, at least count].
        count: How many of them to add.
        alpha: Neighbours are weighted by their score to this power. 0 is average query expansion (AQE, Chum et al.
            2007), 3 the alpha-QE of Radenovic et al. 2018, section 5.4.

    Returns:
        Unit vectors, float32 [queries, features].

    Raises:
        OptionError: The count is negative or above the neighbours given, or alpha is negative.
    """
    if not 0 <= count <= neighbours.shape[1] or alpha < 0:
        raise OptionError(
            f"count={count} and alpha={alpha} are not possible with {neighbours.shape[1]} neighbours: "
            "use at most as many, and an alpha of 0 or more"
        )
    found = vectors[neighbours[:, :count]]
    scores = np.einsum("qd,qkd->qk", queries, found).clip(min=0)
    weights = scores**alpha if alpha else np.ones_like(scores)
    return unit_rows(queries + np.einsum("qk,qkd->qd", weights, found))


def augment_vectors(
    vectors: NDArray[np.float32],
    neighbours: NDArray[np.int64],
    *,
    count: int = 10,
    of: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Database-side augmentation: each vector becomes a weighted sum of itself and its neighbours.

    As in Gordo et al. 2017, section 5.4: the weight of the neighbour at rank r, itself at rank 0, is
    (count - r) / count.

    Args:
        vectors: Unit vectors of the collection, float32 [n, features].
        neighbours: Their nearest in the same collection, the best first and themselves among them, [n, more than
            count]; a picture that is missing from its own list counts nevertheless.
        count: How many take part, itself included.
        of: Rows of `vectors` to augment, to which the rows of `neighbours` belong; None: all.

    Returns:
        Unit vectors, float32 [n, features].

    Raises:
        OptionError: The count is below 1, or not below the number of neighbours given.
    """
    if not 1 <= count < neighbours.shape[1]:
        raise OptionError(
            f"count={count} is not possible with {neighbours.shape[1]} neighbours: use 1 to {neighbours.shape[1] - 1}"
        )
    own = (np.arange(len(vectors)) if of is None else of)[:, None]
    # Where a copy ranks first, the picture itself may come second or later.
    others = np.take_along_axis(neighbours, np.argsort(neighbours == own, axis=1, kind="stable"), axis=1)
    ranked = np.concatenate([own, others[:, : count - 1]], axis=1)
    weights = ((count - np.arange(count)) / count).astype(np.float32)
    return unit_rows(np.einsum("k,nkd->nd", weights, vectors[ranked]))

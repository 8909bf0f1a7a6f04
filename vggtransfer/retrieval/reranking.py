"""k-reciprocal re-ranking: neighbours that are each other's neighbours come first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vggtransfer.errors import OptionError


def k_reciprocal_distances(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    *,
    k1: int = 20,
    k2: int = 6,
    original: float = 0.3,
) -> NDArray[np.float32]:
    """Distances after re-ranking (Zhong et al. 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding").

    The distance is `original` times the squared Euclidean one, scaled by the largest that each picture has, plus
    1 - `original` times the Jaccard distance of the two pictures' k-reciprocal neighbours, expanded and weighted as in
    the paper (equations 3 to 10). All pictures are compared with all: it is for some ten thousand at most, such as the
    best of a search.

    Args:
        queries: Unit vectors, float32 [queries, features].
        gallery: Unit vectors, float32 [n, features].
        k1: Neighbours that are compared; the paper's k1.
        k2: Neighbours whose encodings are averaged (local query expansion); 1 for none.
        original: The paper's lambda, 0 to 1.

    Returns:
        float32 [queries, n]; the smallest is the best.

    Raises:
        OptionError: A number out of range.
    """
    if k1 < 1 or k2 < 1 or k2 > k1 or not 0 <= original <= 1:
        raise OptionError(
            f"k1={k1}, k2={k2}, original={original} are not possible: use k1 >= k2 >= 1 and original from 0 to 1"
        )
    vectors = np.concatenate([queries, gallery])
    squared = (2 - 2 * vectors @ vectors.T).clip(min=0)
    squared /= np.maximum(squared.max(axis=1, keepdims=True), 1e-12)
    ranks = _nearest(squared, min(len(vectors), k1 + 1))
    encoding = _encoding(squared, ranks, k1)
    if k2 > 1:
        near = ranks[:, :k2]
        rows = np.repeat(np.arange(len(vectors)), near.shape[1])
        averaging = csr_matrix(
            (np.full(near.size, 1 / near.shape[1], np.float32), (rows, near.ravel())), shape=squared.shape
        )
        encoding = averaging @ encoding
    jaccard = _jaccard(encoding, len(queries))
    count = len(queries)
    result: NDArray[np.float32] = (1 - original) * jaccard + original * squared[:count, count:]
    return result.astype(np.float32, copy=False)


def _nearest(distances: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The nearest of each row, the first of them first; ties in the order of their numbers."""
    order: NDArray[np.intp] = np.argsort(distances, axis=1, kind="stable")
    return order[:, :count]


def _encoding(distances: NDArray[np.float32], ranks: NDArray[np.intp], k1: int) -> csr_matrix:
    """The k-reciprocal features V [pictures, pictures], rows of sum 1 (equation 7)."""
    neighbours = [_reciprocal(ranks, number, k1) for number in range(len(ranks))]
    halves = [_reciprocal(ranks, number, round(k1 / 2)) for number in range(len(ranks))]
    columns, values = [], []
    for number, found in enumerate(neighbours):
        expanded = [found]
        for candidate in found:
            others = halves[candidate]
            if 3 * len(np.intersect1d(others, found)) > 2 * len(others):
                expanded.append(others)
        members = np.unique(np.concatenate(expanded))
        weights = np.exp(-distances[number, members])
        columns.append(members)
        values.append(weights / weights.sum())
    starts = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
    return csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape=distances.shape)


def _reciprocal(ranks: NDArray[np.intp], number: int, k: int) -> NDArray[np.intp]:
    """The k nearest of a picture, itself included, that have it among their own k nearest (equation 3)."""
    nearest = ranks[number, : k + 1]
    mutual = (ranks[nearest, : k + 1] == number).any(axis=1)
    found: NDArray[np.intp] = nearest[mutual]
    return found


def _jaccard(encoding: csr_matrix, queries: int) -> NDArray[np.float32]:
    """1 - sum(min) / sum(max) of the encodings of queries and gallery (equation 10)."""
    gallery = encoding[queries:].tocsc()
    distances = np.ones((queries, gallery.shape[0]), np.float32)
    for number in range(queries):
        row = encoding[number]
        shared = np.zeros(gallery.shape[0], np.float32)
        for column, value in zip(row.indices, row.data, strict=True):
            places = slice(gallery.indptr[column], gallery.indptr[column + 1])
            shared[gallery.indices[places]] += np.minimum(value, gallery.data[places])
        # Rows have sum 1, so that sum(max) = 2 - sum(min).
        distances[number] = 1 - shared / (2 - shared)
    return distances

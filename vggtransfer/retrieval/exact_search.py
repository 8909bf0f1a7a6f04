"""Exact search by inner product, faster than one large matrix product in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggtransfer.encoder.precision import Precision, resolve_device, resolve_precision
from vggtransfer.errors import InputError, OptionError

_QUERIES = 256  # at once; with the vectors at once, what keeps 32 MB of scores together
_VECTORS = 65_536
_GROUP = 16


class ExactSearch:
    """Finds the vectors with the largest inner products among all of them.

    In bfloat16 every vector is scored; the best 1.5 k + 10 are scored again in float32, and those scores are the ones
    returned. Rounding loses a neighbour only if it puts more than k / 2 + 10 others before it that are in fact worse,
    which takes that many scores within a 256th of each other.

    Args:
        vectors: float32 [n, features], at most of length about 1. A writeable array is used as it is, not copied.
        precision: Of the first pass: `auto` is bfloat16 where the hardware multiplies it natively, else float32.
        device: `auto` takes a GPU if there is one.

    Raises:
        InputError: The vectors have another shape or type.
    """

    def __init__(self, vectors: NDArray[np.float32], *, precision: Precision = "auto", device: str = "auto") -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise InputError(f"vectors must be float32 [n, features], got {vectors.dtype} {list(vectors.shape)}")
        self._device = resolve_device(device)
        writeable = np.require(vectors, requirements=["C", "W"])  # torch takes no others
        self._exact = torch.from_numpy(writeable).to(self._device)
        self._coarse = self._exact.to(resolve_precision(precision, self._device))

    def __len__(self) -> int:
        return len(self._exact)

    def search(
        self, queries: NDArray[np.float32], *, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Finds the k best vectors of each query, the best first.

        Args:
            queries: float32 [queries, features].
            k: How many; if there are fewer vectors, all of them.
            allowed: Whether each vector may be found, [n]; None: all may.

        Returns:
            Inner products, float32 [queries, k], and numbers of vectors, int64 [queries, k].

        Raises:
            OptionError: k is below 1.
            InputError: The queries have another shape or type.
        """
        if k < 1:
            raise OptionError(f"k={k} is not possible: it must be at least 1")
        features = self._exact.shape[1]
        if queries.ndim != 2 or queries.shape[1] != features or queries.dtype != np.float32:
            raise InputError(
                f"queries must be float32 [queries, {features}], got {queries.dtype} {list(queries.shape)}"
            )
        numbers, coarse = None, self._coarse
        if allowed is not None:
            numbers = torch.from_numpy(np.flatnonzero(allowed)).to(self._device)
            coarse = self._coarse[numbers]
        k = min(k, len(coarse))
        scores = np.empty((len(queries), k), np.float32)
        found = np.empty((len(queries), k), np.int64)
        with torch.inference_mode():
            for start in range(0, len(queries) if k else 0, _QUERIES):
                rows = slice(start, start + _QUERIES)
                block = torch.from_numpy(np.require(queries[rows], requirements=["C", "W"])).to(self._device)
                candidates = _candidates(block.to(coarse.dtype), coarse, wanted=min(len(coarse), k + k // 2 + 10))
                if numbers is not None:
                    candidates = numbers[candidates]
                best_scores, best = self._ranked(block, candidates, k)
                scores[rows], found[rows] = best_scores.cpu().numpy(), best.cpu().numpy()
        return scores, found

    def _ranked(self, queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best of the candidates [queries, c] by their float32 scores; of equal ones the first vector first."""
        candidates = candidates.sort(dim=1).values
        # Fancy indexing, and the product the other way round, take three and eleven times as long on a CPU.
        vectors = self._exact.index_select(0, candidates.flatten()).view(*candidates.shape, -1)
        scores = torch.bmm(queries[:, None, :], vectors.transpose(1, 2))[:, 0, :]
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return scores.gather(1, order), candidates.gather(1, order)


def _candidates(queries: Tensor, vectors: Tensor, *, wanted: int) -> Tensor:
    """Numbers [queries, wanted] of the vectors with the best scores, in any order."""
    parts = [_best_columns(queries @ block.T, wanted, offset) for offset, block in _blocks(vectors)]
    if len(parts) == 1:
        return parts[0][1]
    scores, columns = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    return columns.gather(1, scores.topk(wanted, dim=1, sorted=False).indices)


def _blocks(vectors: Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(vectors), _VECTORS):
        yield start, vectors[start : start + _VECTORS]


def _best_columns(scores: Tensor, wanted: int, offset: int) -> tuple[Tensor, Tensor]:
    """The best scores of each row, and their columns counted from the offset.

    The best `wanted` scores lie in those `wanted` groups whose own best are the best: selecting groups first spares
    most of what a selection among all columns costs.
    """
    count = scores.shape[1]
    groups = count // _GROUP
    wanted = min(wanted, count)
    if groups <= 2 * wanted:
        values, columns = scores.topk(wanted, dim=1, sorted=False)
        return values, columns + offset
    whole = groups * _GROUP
    # Group g holds the columns g, g + groups, g + 2 groups, ...: maxima over neighbours in memory would be slow.
    maxima = scores[:, :whole].view(len(scores), _GROUP, groups).amax(dim=1)
    chosen = maxima.topk(wanted, dim=1, sorted=False).indices
    steps = torch.arange(0, whole, groups, device=scores.device)
    rest = torch.arange(whole, count, device=scores.device).expand(len(scores), -1)
    columns = torch.cat([(chosen[:, :, None] + steps).flatten(1), rest], dim=1)
    values, places = scores.gather(1, columns).topk(wanted, dim=1, sorted=False)
    return values, columns.gather(1, places) + offset

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

    In bfloat16 every vector is scored, as its difference from the mean of all, which is what vectors of a network have
    in common for the most part; the best 1.5 k + 10 are scored again in float32, and those scores are the ones
    returned. They also tell how far off bfloat16 is here. A query for which a vector that was left out might still
    belong among the best is answered anew in float32 throughout.

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
        compute_type = resolve_precision(precision, self._device)
        self._mean = None if compute_type == torch.float32 or not len(vectors) else self._exact.mean(dim=0)
        self._coarse = self._exact if self._mean is None else (self._exact - self._mean).to(compute_type)

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
                best_scores, best = self._best(block, coarse, numbers, k)
                scores[rows], found[rows] = best_scores.cpu().numpy(), best.cpu().numpy()
        return scores, found

    def _best(self, queries: Tensor, coarse: Tensor, numbers: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
        """Scores and numbers [queries, k] of the best vectors; `numbers` are those of the rows of `coarse`."""
        wanted = min(len(coarse), k + k // 2 + 10)
        estimates, candidates = _candidates(queries.to(coarse.dtype), coarse, wanted=wanted)
        candidates = candidates if numbers is None else numbers[candidates]
        exact = self._scores(queries, candidates)
        scores, found = _ranked(exact, candidates, k)
        if self._mean is None or wanted == len(coarse):
            return scores, found
        estimates = estimates.float() + (queries @ self._mean)[:, None]
        # Errors are those of rounding: twice the largest of some thousand is far beyond what one more would have.
        doubt = 2 * (estimates - exact).abs().max()
        unsure = (estimates.amin(dim=1) + doubt > scores[:, -1]).nonzero()[:, 0]
        if len(unsure):
            among = self._exact if numbers is None else self._exact[numbers]
            _, candidates = _candidates(queries[unsure], among, wanted=k)
            candidates = candidates if numbers is None else numbers[candidates]
            scores[unsure], found[unsure] = _ranked(self._scores(queries[unsure], candidates), candidates, k)
        return scores, found

    def _scores(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Inner products [queries, c] with the vectors of some numbers [queries, c], in float32."""
        # Fancy indexing, and the product the other way round, take three and eleven times as long on a CPU.
        vectors = self._exact.index_select(0, candidates.flatten()).view(*candidates.shape, -1)
        return torch.bmm(queries[:, None, :], vectors.transpose(1, 2))[:, 0, :]


def _ranked(scores: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of some candidates [queries, c] by their scores; of equal ones the first vector first."""
    by_number = candidates.argsort(dim=1)
    scores, candidates = scores.gather(1, by_number), candidates.gather(1, by_number)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return scores.gather(1, order), candidates.gather(1, order)


def _candidates(queries: Tensor, vectors: Tensor, *, wanted: int) -> tuple[Tensor, Tensor]:
    """Scores and numbers [queries, wanted] of the vectors with the best scores, in any order."""
    parts = [_best_columns(queries @ block.T, wanted, offset) for offset, block in _blocks(vectors)]
    if len(parts) == 1:
        return parts[0]
    scores, columns = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    scores, places = scores.topk(wanted, dim=1, sorted=False)
    return scores, columns.gather(1, places)


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

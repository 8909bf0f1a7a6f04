"""How good a ranking is: recall, mean average precision by label, and the revisited Oxford and Paris protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import DataError, OptionError

Difficulty = Literal["easy", "medium", "hard"]


def recall_of_neighbours(found: NDArray[np.int64], exact: NDArray[np.int64], *, k: int) -> float:
    """The part of the exact k nearest, 0 to 1, that a search found among its own first k, averaged over queries.

    Args:
        found: Numbers of pictures, [queries, at least k], the best first; -1 where the search found no more.
        exact: The same of an exact search.
        k: How many to compare.
    """
    hits = (found[:, :k, None] == exact[:, None, :k]).any(axis=1)
    return float(hits.mean())


@dataclass(frozen=True)
class LabelScores:
    """How well the neighbours of pictures share their label.

    Attributes:
        queries: Pictures with a label that another one has as well; the others are left out.
        recall: By k: the part of the queries with a picture of the same label among the first k.
        mean_average_precision: Mean over the queries.
        by_label: Average precision of each label, the mean of its queries.
    """

    queries: int
    recall: Mapping[int, float]
    mean_average_precision: float
    by_label: Mapping[str, float]


def score_by_label(
    vectors: NDArray[np.float32],
    labels: Sequence[str],
    *,
    ks: Sequence[int] = (1, 5, 10),
    batch: int | None = None,
    reorder: Callable[[int, NDArray[np.int64]], NDArray[np.int64]] | None = None,
) -> LabelScores:
    """Searches with each picture among all others, exactly, and compares the labels.

    Average precision is that of the complete ranking, the mean over the right pictures of the precision at their rank;
    of equal scores, the picture with the lower number comes first.

    Args:
        vectors: Unit vectors, float32 [n, features].
        labels: Of the pictures; an empty one is none, and counts as a wrong answer.
        ks: For the recall.
        batch: Queries at once, each of which takes some 40 bytes per picture; None: as many as take 256 MB.
        reorder: Given the number of a query and those of all others, the best first, returns them in another order.

    Raises:
        DataError: No two pictures have the same label.
    """
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.bincount(codes)
    queries = np.flatnonzero((counts[codes] > 1) & (names[codes] != ""))
    if len(queries) == 0:
        raise DataError(
            "no two pictures have the same label: there is nothing to score; see recall against exact search"
        )
    batch = max(1, 2**28 // (40 * len(vectors))) if batch is None else batch
    precisions = np.empty(len(queries))
    first_right = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), batch):
        rows = queries[start : start + batch]
        scores = vectors[rows] @ vectors.T
        scores[np.arange(len(rows)), rows] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
        if reorder is not None:
            order = np.stack([reorder(int(row), of_row) for row, of_row in zip(rows, order, strict=True)])
        right = codes[order] == codes[rows, None]
        ranks = np.arange(1, right.shape[1] + 1)
        precision = np.where(right, right.cumsum(axis=1) / ranks, 0).sum(axis=1)
        precisions[start : start + batch] = precision / (counts[codes[rows]] - 1)
        first_right[start : start + batch] = right.argmax(axis=1)
    sums = np.bincount(codes[queries], precisions, minlength=len(names))
    by_label = {str(names[code]): float(sums[code] / counts[code]) for code in np.unique(codes[queries])}
    recall = {k: float((first_right < k).mean()) for k in ks}
    return LabelScores(len(queries), recall, float(precisions.mean()), by_label)


@dataclass(frozen=True)
class GroundTruthQuery:
    """A query of a landmark benchmark and the pictures that show the same.

    Attributes:
        query: Its name.
        box: The part of it to search with, (left, top, right, bottom) in pixels; None for all of it.
        easy: Names of the pictures that show it clearly.
        hard: Names of those that show it, but from aside, in the dark, or hardly.
        junk: Names of those that are neither right nor wrong.
    """

    query: str
    box: tuple[float, float, float, float] | None
    easy: frozenset[str]
    hard: frozenset[str]
    junk: frozenset[str]


def read_ground_truth(path: Path) -> list[GroundTruthQuery]:
    """Reads a ground-truth file: a JSON list of objects with `query`, `easy`, `hard`, `junk` and, if wanted, `box`.

    Names are paths of pictures as the index has them. The published `gnd_roxford5k.pkl` has the same contents by
    number; it is a pickle, which could run any code when loaded, and has to be converted by whoever trusts it.

    Raises:
        DataError: The file cannot be read, or a query contradicts itself.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no ground-truth file: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} is no ground-truth file: it must be a JSON list of queries")
    return [_query(path, number, entry) for number, entry in enumerate(entries)]


def _query(path: Path, number: int, entry: Any) -> GroundTruthQuery:
    place = f"{path}, query {number + 1}"
    known = {"query", "easy", "hard", "junk", "box"}
    if not isinstance(entry, dict) or not isinstance(entry.get("query"), str) or not set(entry) <= known:
        raise DataError(f"{place}: it must be an object with query, easy, hard, junk and perhaps box")
    sets = {}
    for name in ("easy", "hard", "junk"):
        names = entry.get(name, [])
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise DataError(f"{place}: {name} must be a list of names of pictures")
        sets[name] = frozenset(names)
    if twice := (sets["easy"] & sets["hard"]) | (sets["easy"] | sets["hard"]) & sets["junk"]:
        raise DataError(f"{place}: {min(twice)} is in two of easy, hard and junk")
    box = entry.get("box")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        raise DataError(f"{place}: box must be [left, top, right, bottom] in pixels")
    return GroundTruthQuery(entry["query"], tuple(box) if box is not None else None, **sets)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class LandmarkScores:
    """What the revisited protocol reports for one difficulty.

    Attributes:
        queries: With at least one right picture; the others are left out.
        mean_average_precision: Area under the precision-recall curve, mean over the queries.
        precision: By k: right pictures among the first k, mean over the queries.
    """

    queries: int
    mean_average_precision: float
    precision: Mapping[int, float]


def score_landmarks(
    rankings: Sequence[Sequence[str]], truths: Sequence[GroundTruthQuery], *, ks: Sequence[int] = (1, 5, 10)
) -> dict[Difficulty, LandmarkScores]:
    """Scores rankings as Radenovic et al. 2018, "Revisiting Oxford and Paris", section 3.3.

    Easy: easy pictures are right, hard ones junk. Medium: both are right. Hard: hard ones are right, easy ones junk.
    Junk is taken out of a ranking before it is scored. Average precision is the area under the precision-recall curve
    by the trapezoidal rule, and precision at k is taken at the rank of the last right picture where that is smaller, as
    the authors' program does both.

    Args:
        rankings: For each query names of all pictures, the best first; those left out come too late to count.
        truths: The queries.
        ks: For the precision.

    Raises:
        OptionError: Rankings and queries do not correspond.
    """
    if len(rankings) != len(truths):
        raise OptionError(f"there are {len(rankings)} rankings of {len(truths)} queries")
    return {level: _scores(level, rankings, truths, ks) for level in get_args(Difficulty)}


def _scores(
    level: Difficulty, rankings: Sequence[Sequence[str]], truths: Sequence[GroundTruthQuery], ks: Sequence[int]
) -> LandmarkScores:
    precisions: list[float] = []
    at: dict[int, list[float]] = {k: [] for k in ks}
    for ranking, truth in zip(rankings, truths, strict=True):
        match level:
            case "easy":
                right, junk = truth.easy, truth.junk | truth.hard
            case "medium":
                right, junk = truth.easy | truth.hard, truth.junk
            case "hard":
                right, junk = truth.hard, truth.junk | truth.easy
        if not right:
            continue
        kept = [name for name in ranking if name not in junk]
        ranks = np.array([rank for rank, name in enumerate(kept) if name in right], dtype=np.int64)  # from 0
        precisions.append(_trapezoidal_average_precision(ranks, len(right)))
        for k in ks:
            depth = min(k, ranks[-1] + 1) if len(ranks) else k
            at[k].append(float((ranks < depth).sum() / depth))
    if not precisions:
        return LandmarkScores(0, float("nan"), {k: float("nan") for k in ks})
    return LandmarkScores(len(precisions), float(np.mean(precisions)), {k: float(np.mean(at[k])) for k in ks})


def _trapezoidal_average_precision(ranks: NDArray[np.int64], right: int) -> float:
    """Each right picture adds a step of 1 / right to the recall, at the mean of the precisions before and after it."""
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    after = (found + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / right)

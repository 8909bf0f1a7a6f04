"""How well a measure agrees with people, or with an order that is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def two_alternative_score(first: Numbers, second: Numbers, share: Numbers) -> float:
    """The mean agreement with people who were asked which of two pictures is closer to a reference (2AFC).

    Zhang et al. 2018, section 4.2: for each triplet, the share of people who chose as the measure does; half for a tie.

    Args:
        first: Distances of the first pictures to their references, [n].
        second: Of the second ones, [n].
        share: Share of people who found the second closer, 0 to 1, [n].
    """
    agreement = np.where(first < second, 1 - share, np.where(second < first, share, 0.5))
    return float(agreement.mean())


def people_score(share: Numbers) -> float:
    """The mean agreement of one more person out of the same people, p^2 + (1 - p)^2: Zhang et al. 2018, section 4.2."""
    return float((share**2 + (1 - share) ** 2).mean())


def just_noticeable_score(distances: Numbers, same: Numbers) -> float:
    """Average precision of finding by small distances the pairs that people take for the same picture (JND).

    As published with LPIPS: pairs sorted by distance, precision and recall over the shares of people, and the area
    below the precision made to fall monotonically (as in Pascal VOC since 2010).

    Args:
        distances: [n].
        same: Share of people who could not tell the two apart, 0 to 1, [n]; not all 0.
    """
    found = np.cumsum(same[np.argsort(distances, kind="stable")])
    precision = found / np.arange(1, len(found) + 1)
    recall = found / found[-1]
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * falling).sum())


def rank_correlation(x: Numbers, y: Numbers) -> float:
    """Spearman's rank correlation of two lists of numbers, ties sharing their mean rank; 0 if all of one are equal."""
    x_ranks, y_ranks = _ranks(x), _ranks(y)
    if np.ptp(x_ranks) == 0 or np.ptp(y_ranks) == 0:
        return 0.0
    return float(np.corrcoef(x_ranks, y_ranks)[0, 1])


def ordered_share(distances: Numbers) -> float:
    """The share of pairs that come in their known order; half for a tie.

    Args:
        distances: [pictures, strengths], from the weakest distortion to the strongest.
    """
    right = [
        np.where(weak < strong, 1.0, np.where(weak == strong, 0.5, 0.0))
        for position, strong in enumerate(distances.T)
        for weak in distances.T[:position]
    ]
    return float(np.mean(right))


def _ranks(values: Numbers) -> Numbers:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]

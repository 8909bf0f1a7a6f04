from __future__ import annotations

import numpy as np
import pytest

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.reranking import k_reciprocal_distances
from vggtransfer.retrieval.whitening import unit_rows


def paper(queries: np.ndarray, gallery: np.ndarray, k1: int, k2: int, original: float) -> np.ndarray:
    """Zhong et al. 2017, written down set by set."""
    x = np.concatenate([queries, gallery]).astype(np.float64)
    n = len(x)
    d = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    d = d / d.max(axis=1, keepdims=True)
    rank = np.argsort(d, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in rank[i, : k + 1] if i in rank[j, : k + 1]}

    v = np.zeros((n, n))
    for i in range(n):
        r = reciprocal(i, k1)
        expanded = set(r)
        for j in r:
            other = reciprocal(j, round(k1 / 2))
            if len(r & other) > 2 / 3 * len(other):
                expanded |= other
        members = sorted(expanded)
        v[i, members] = np.exp(-d[i, members])
        v[i] /= v[i].sum()
    v = np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(n)])
    q = len(queries)
    jaccard = np.array([[1 - np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in v[q:]] for a in v[:q]])
    return (1 - original) * jaccard + original * d[:q, q:]


@pytest.mark.parametrize(("k1", "k2"), [(6, 3), (5, 1)])
def test_distances_are_the_papers(k1: int, k2: int) -> None:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((4, 8))
    x = unit_rows((np.repeat(centres, 8, axis=0) + 0.6 * generator.standard_normal((32, 8))).astype(np.float32))
    x = x[generator.permutation(32)]
    found = k_reciprocal_distances(x[:5], x[5:], k1=k1, k2=k2)
    np.testing.assert_allclose(found, paper(x[:5], x[5:], k1, k2, 0.3), atol=1e-5)


def test_options_out_of_range_are_refused() -> None:
    x = np.eye(4, dtype=np.float32)
    for options in ({"k1": 0}, {"k1": 3, "k2": 4}, {"original": 1.5}):
        with pytest.raises(OptionError, match="are not possible"):
            k_reciprocal_distances(x, x, **options)

from __future__ import annotations

import numpy as np
import pytest

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.expansion import augment_vectors, expand_queries

VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
QUERY = np.array([[1, 0]], dtype=np.float32)
NEIGHBOURS = np.array([[0, 1, 2]])


def unit(x: float, y: float) -> list[float]:
    length = (x * x + y * y) ** 0.5
    return [x / length, y / length]


def test_query_expansion_worked_out_by_hand() -> None:
    average = expand_queries(QUERY, VECTORS, NEIGHBOURS, count=2)
    assert average[0].tolist() == pytest.approx(unit(1 + 1 + 0.8, 0.6))
    weighted = expand_queries(QUERY, VECTORS, NEIGHBOURS, count=3, alpha=3)
    assert weighted[0].tolist() == pytest.approx(unit(1 + 1 + 0.8**3 * 0.8, 0.8**3 * 0.6))
    assert expand_queries(QUERY, VECTORS, NEIGHBOURS, count=0)[0].tolist() == [1, 0]


def test_augmentation_worked_out_by_hand() -> None:
    # The second picture misses itself among its neighbours, the third comes after its copy.
    neighbours = np.array([[0, 1, 2], [0, 2, 0], [1, 2, 0]])
    augmented = augment_vectors(VECTORS, neighbours, count=2)
    assert augmented[0].tolist() == pytest.approx(unit(1 + 0.4, 0.3))
    assert augmented[1].tolist() == pytest.approx(unit(0.8 + 0.5, 0.6))
    assert augmented[2].tolist() == pytest.approx(unit(0.4, 1 + 0.3))


def test_more_neighbours_than_there_are_is_an_error() -> None:
    with pytest.raises(OptionError, match="count=4"):
        expand_queries(QUERY, VECTORS, NEIGHBOURS, count=4)
    with pytest.raises(OptionError, match="use 1 to 2"):
        augment_vectors(VECTORS, np.array([[0, 1, 2]] * 3), count=3)

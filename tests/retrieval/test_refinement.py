"""The best of a search in another order: the same as re-ranking and augmenting the whole, seen from one query."""

from __future__ import annotations

import numpy as np
import pytest

from vggtransfer.errors import OptionError
from vggtransfer.retrieval.expansion import augment_vectors
from vggtransfer.retrieval.refinement import Refinement
from vggtransfer.retrieval.reranking import k_reciprocal_distances
from vggtransfer.retrieval.whitening import unit_rows

VECTORS = unit_rows(np.random.default_rng(0).normal(size=(41, 6)).astype(np.float32))
QUERY, COLLECTION = VECTORS[0], VECTORS[1:]
NEAREST = np.argsort(-COLLECTION @ COLLECTION.T, axis=1)
FOUND = np.argsort(-COLLECTION @ QUERY)


def order(refinement: Refinement, found: np.ndarray = FOUND, without: int = -1) -> list[int]:
    places = refinement.order(
        QUERY,
        found,
        vectors_of=lambda numbers: COLLECTION[numbers],
        nearest=lambda numbers: NEAREST[numbers, : refinement.augment + 1],
        without=without,
    )
    return found[places].tolist()


def test_augmented_pictures_are_those_of_an_augmented_collection() -> None:
    augmented = augment_vectors(COLLECTION, NEAREST[:, :5], count=4)
    assert order(Refinement(augment=4)) == np.argsort(-augmented @ QUERY).tolist() != FOUND.tolist()


def test_a_query_of_the_collection_does_not_draw_others_to_itself() -> None:
    others = np.array([number for number in FOUND if number != FOUND[0]])
    blank = COLLECTION.copy()
    blank[FOUND[0]] = 0
    expected = others[np.argsort(-augment_vectors(blank, NEAREST[:, :5], count=4)[others] @ QUERY)]
    assert order(Refinement(augment=4), others, without=int(FOUND[0])) == expected.tolist()


def test_the_best_are_ordered_by_k_reciprocal_distance_and_the_rest_stays() -> None:
    distances = k_reciprocal_distances(QUERY[None], COLLECTION[FOUND[:15]])[0]
    expected = [*FOUND[:15][np.argsort(distances, kind="stable")], *FOUND[15:]]
    assert order(Refinement(rerank=15)) == expected != FOUND.tolist()
    assert order(Refinement(rerank=15), FOUND[:0]) == []


def test_a_search_that_found_less_adds_nothing_for_what_is_missing() -> None:
    known = NEAREST[:, :3]
    missing = np.concatenate([known, np.full((40, 2), -1)], axis=1)
    places = Refinement(augment=4).order(
        QUERY, FOUND, vectors_of=lambda numbers: COLLECTION[numbers], nearest=lambda numbers: missing[numbers]
    )
    sums = COLLECTION + 0.75 * COLLECTION[known[:, 1]] + 0.5 * COLLECTION[known[:, 2]]
    np.testing.assert_array_equal(FOUND[places], np.argsort(-unit_rows(sums) @ QUERY))


def test_impossible_numbers() -> None:
    with pytest.raises(OptionError, match="rerank=-1 is not possible"):
        Refinement(rerank=-1)

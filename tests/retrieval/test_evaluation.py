from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from vggtransfer.errors import DataError, OptionError
from vggtransfer.retrieval.evaluation import (
    read_ground_truth,
    recall_of_neighbours,
    score_by_label,
    score_landmarks,
)


def test_recall_against_exact_search() -> None:
    exact = np.array([[0, 1, 2], [3, 4, 5]])
    found = np.array([[2, 0, 9], [4, -1, -1]])
    assert recall_of_neighbours(found, exact, k=3) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert recall_of_neighbours(found, exact, k=1) == 0


def test_scores_by_label_worked_out_by_hand() -> None:
    angles = np.deg2rad([0, 10, 30, 90, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    scores = score_by_label(vectors, ["a", "b", "a", "b", ""], ks=(1, 2, 3), batch=3)
    # Nearest first, by angle: a0: b10 a30 _40 b90;  b10: a0 a30 _40 b90;  a30: _40 b10 a0 b90;  b90: _40 a30 b10 a0.
    assert scores.queries == 4
    assert scores.by_label == {"a": pytest.approx((1 / 2 + 1 / 3) / 2), "b": pytest.approx((1 / 4 + 1 / 3) / 2)}
    assert scores.mean_average_precision == pytest.approx((1 / 2 + 1 / 4 + 1 / 3 + 1 / 3) / 4)
    assert scores.recall == {1: 0, 2: 1 / 4, 3: 3 / 4}
    with pytest.raises(DataError, match="no two pictures"):
        score_by_label(vectors, ["a", "b", "c", "d", ""])


GROUND_TRUTH = [
    {"query": "q1.jpg", "box": [0, 0, 10, 10.5], "easy": ["e1", "e2"], "hard": ["h1"], "junk": ["j1"]},
    {"query": "q2.jpg", "hard": ["h2"]},
]
RANKINGS = [["j1", "e1", "n1", "h1", "n2", "e2"], ["n1", "n2", "n3", "h2"]]


def test_revisited_protocol_worked_out_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(GROUND_TRUTH))
    truths = read_ground_truth(path)
    assert truths[0].box == (0, 0, 10, 10.5)
    assert truths[1].box is None
    scores = score_landmarks(RANKINGS, truths, ks=(1, 2, 10))

    # Easy: without j1 and h1: e1 n1 n2 e2. Precisions before and after: 1, 1; 1/3, 2/4. Only q1 has easy pictures.
    assert scores["easy"].queries == 1
    assert scores["easy"].mean_average_precision == pytest.approx(((1 + 1) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert scores["easy"].precision == {1: 1, 2: pytest.approx(1 / 2), 10: pytest.approx(2 / 4)}
    # Medium: q1 without j1: e1 n1 h1 n2 e2: (1, 1), (1/2, 2/3), (2/4, 3/5); q2: n n n h2: (0, 1/4).
    first = ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2 + (2 / 4 + 3 / 5) / 2) / 3
    assert scores["medium"].queries == 2
    assert scores["medium"].mean_average_precision == pytest.approx((first + 1 / 8) / 2)
    assert scores["medium"].precision[10] == pytest.approx((3 / 5 + 1 / 4) / 2)
    # Hard: q1 without j1, e1, e2: n1 h1 n2: (0, 1/2).
    assert scores["hard"].mean_average_precision == pytest.approx((1 / 4 + 1 / 8) / 2)
    assert scores["hard"].precision[1] == 0


def test_right_pictures_that_are_never_ranked_count_as_missed() -> None:
    (truth,) = read_of([{"query": "q", "easy": ["e1", "e2"]}])
    scores = score_landmarks([["e1"]], [truth])
    assert scores["easy"].mean_average_precision == pytest.approx(0.5)
    assert scores["hard"].queries == 0
    assert math.isnan(scores["hard"].mean_average_precision)
    assert score_landmarks([["n"]], [truth])["easy"].precision[1] == 0
    with pytest.raises(OptionError, match="1 rankings of 0 queries"):
        score_landmarks([["n"]], [])


def read_of(entries: object) -> list:
    path = Path("truth.json")
    path.write_text(json.dumps(entries))
    return read_ground_truth(path)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "JSON list of queries"),
        ([{"query": 3}], "query 1: it must be an object"),
        ([{"query": "q", "esay": []}], "query 1: it must be an object"),
        ([{"query": "q", "easy": "e1"}], "easy must be a list"),
        ([{"query": "q", "easy": ["x"], "junk": ["x"]}], "x is in two of"),
        ([{"query": "q", "box": [1, 2, 3]}], "box must be"),
    ],
)
def test_a_ground_truth_that_cannot_be_used_says_why(entries: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_of(entries)
    with pytest.raises(DataError, match="no ground-truth file"):
        read_ground_truth(Path("missing.json"))

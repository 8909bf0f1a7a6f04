"""`vggtransfer index evaluate`: whether the search finds what is there, and whether that is what people mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.errors import DataError, OptionError
from vggtransfer.option_values import checked_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from vggtransfer.retrieval.evaluation import GroundTruthQuery, LabelScores, LandmarkScores
    from vggtransfer.retrieval.image_index import ImageIndex
    from vggtransfer.retrieval.refinement import Refinement

_RECALLS = (1, 10)
_LABELLED = 20_000
_LABELS_SHOWN = 15


@dataclass(frozen=True)
class IndexScores:
    """What `index evaluate` measured.

    Attributes:
        index: The index, as given.
        queries: Pictures that were looked up among the others, for the recall.
        recall: By k: share of the exact k nearest, 0 to 1, among the k that the search finds.
        labels: How well neighbours share labels, by exact search; None without labels.
        labelled: Pictures that this was measured on: all that have a label, or 20,000 of them.
        landmarks: Scores by difficulty; None without a ground-truth file.
    """

    index: Path
    queries: int
    recall: Mapping[int, float]
    labels: LabelScores | None
    labelled: int
    landmarks: Mapping[Any, LandmarkScores] | None

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        return {
            "index": str(self.index),
            "queries": self.queries,
            "recall": {str(k): share for k, share in self.recall.items()},
            "labelled": self.labelled,
            "labels": None if self.labels is None else asdict(self.labels),
            "landmarks": None
            if self.landmarks is None
            else {level: asdict(scores) for level, scores in self.landmarks.items() if scores.queries},
        }


def index_evaluate(
    index: Path,
    *,
    ground_truth: Path | None = None,
    augment: int = 0,
    rerank: int = 0,
    sample: int = 1000,
    seed: int = 0,
    weights: str | None = None,
    device: str = "auto",
    format: Literal["table", "json"] = "table",  # noqa: A002
) -> IndexScores:
    """Measures an index: recall against exact search, precision by label, and landmark benchmarks.

    Recall@k is the share of the true k nearest pictures among the k found, for pictures of the collection looked up
    among the others. By label, each picture is looked up by exact search, and a neighbour is right if it has the same
    label. With a ground-truth file, the protocol of the revisited Oxford and Paris benchmarks is followed.

    Args:
        index: Index directory.
        ground_truth: JSON list of queries, each an object with `query`, `easy`, `hard` and `junk`, and perhaps `box`
            ([left, top, right, bottom] in pixels); pictures by their paths below the folder of the collection.
        augment: Measure by label, and with a ground-truth file, what `search --augment` would bring.
        rerank: Likewise for `search --rerank`.
        sample: Pictures to look up for the recall.
        seed: Chooses them.
        weights: The encoder's weights or model, if they are not where they were.
        device: Where the queries of a ground-truth file are embedded.
        format: Lines for people, or one JSON object.

    Raises:
        VGGTransferError: The index, an option or the ground truth cannot be used.
    """
    given = checked_values(index_evaluate, dict(locals()))
    if sample < 1:
        raise OptionError(f"sample={sample} is not possible: it must be at least 1")
    from vggtransfer.retrieval.image_index import ImageIndex
    from vggtransfer.retrieval.refinement import Refinement

    refinement = Refinement(augment, rerank)
    opened = ImageIndex.open(given["index"], weights=weights, device=device)
    queries, recall = _recall(opened, sample=sample, seed=seed)
    labels, labelled = _by_label(opened, refinement, seed=seed)
    landmarks = None if given["ground_truth"] is None else _landmarks(opened, given["ground_truth"], refinement)
    scores = IndexScores(given["index"], queries, recall, labels, labelled, landmarks)
    if format == "json":
        from vggtransfer.report.json_output import print_json

        print_json(scores.as_dict())
    else:
        _print(scores, opened)
    return scores


def _recall(index: ImageIndex, *, sample: int, seed: int) -> tuple[int, dict[int, float]]:
    from vggtransfer.retrieval.index_tuning import recall_of

    state = index.searching.state
    rows = state.vectors.sample(state.table.rows, most=sample, seed=seed)
    vectors = state.vectors[rows]
    recall = {}
    for k in _RECALLS:
        _, found = index.searching.rows(vectors, k=k + 1)
        _, exact = index.searching.exact_rows(vectors, k=k + 1)
        recall[k] = recall_of(found, exact, without=rows)
    return len(rows), recall


def _by_label(index: ImageIndex, refinement: Refinement, *, seed: int) -> tuple[LabelScores | None, int]:
    import numpy as np

    from vggtransfer.retrieval.evaluation import score_by_label

    state = index.searching.state
    labels = np.array(state.table.labels, object)
    positions = np.flatnonzero(labels != "")
    if len(positions) > _LABELLED:
        positions = np.sort(np.random.default_rng(seed).choice(positions, _LABELLED, replace=False))
    try:
        vectors = state.vectors[state.table.rows[positions]]
        reorder = _reordering(vectors, refinement) if refinement else None
        scores = score_by_label(vectors, labels[positions].tolist(), reorder=reorder)
    except DataError:  # no two pictures have the same
        return None, 0
    return scores, len(positions)


def _reordering(
    vectors: NDArray[np.float32], refinement: Refinement
) -> Callable[[int, NDArray[np.int64]], NDArray[np.int64]]:
    """What `search` does to the best, for queries that are in the collection themselves."""
    from vggtransfer.retrieval.exact_search import ExactSearch

    nearest = None
    if refinement.augment:
        _, nearest = ExactSearch(vectors).search(vectors, k=refinement.augment + 1)

    def reorder(query: int, ranking: NDArray[np.int64]) -> NDArray[np.int64]:
        order = refinement.order(
            vectors[query],
            ranking,
            vectors_of=lambda numbers: vectors[numbers],
            nearest=lambda numbers: numbers if nearest is None else nearest[numbers],
            without=query,
        )
        return ranking[order]

    return reorder


def _landmarks(index: ImageIndex, path: Path, refinement: Refinement) -> Mapping[Any, LandmarkScores]:
    import numpy as np

    from vggtransfer.retrieval.evaluation import read_ground_truth, score_landmarks

    truths = read_ground_truth(path)
    state = index.searching.state
    names = {int(row): name for row, name in zip(state.table.rows, state.table.names, strict=True)}
    known = set(state.table.names)
    for truth in truths:
        if missing := sorted((truth.easy | truth.hard) - known):
            raise DataError(f"{path}: {missing[0]} is right for {truth.query}, but not in {index.path}")
    vectors = state.vectors.of(index.embed([_query_picture(index, truth) for truth in truths]))
    _, rows = index.searching.exact_rows(vectors, k=len(names))
    if refinement:
        rows = np.stack(
            [of[index.searching.refined(query, of, refinement)] for query, of in zip(vectors, rows, strict=True)]
        )
    return score_landmarks([[names[row] for row in ranking] for ranking in rows.tolist()], truths)


def _query_picture(index: ImageIndex, truth: GroundTruthQuery) -> Any:
    """The query picture; where the protocol searches with a part of it, that part, as a PIL image."""
    path = index.data / truth.query
    if truth.box is None:
        return path
    from PIL import Image

    from vggtransfer.data.decode import decode_image

    left, top, right, bottom = (round(edge) for edge in truth.box)
    pixels = decode_image(path)[max(top, 0) : bottom, max(left, 0) : right]
    if pixels.size == 0:
        raise DataError(f"{path}: the box {list(truth.box)} is not inside of it")
    return Image.fromarray(pixels)


def _print(scores: IndexScores, index: ImageIndex) -> None:
    from vggtransfer.printable import printable
    from vggtransfer.retrieval.recipe import described

    print(f"{scores.index}: {len(index):,} pictures, {described(index.description)}")
    found = ", ".join(f"@{k} {share:.2%}" for k, share in scores.recall.items())
    print(f"recall against exact search: {found} ({scores.queries:,} pictures looked up)")
    if scores.labels is None:
        print("by label: no two pictures have the same one")
    else:
        labels = scores.labels
        found = ", ".join(f"recall@{k} {share:.1%}" for k, share in labels.recall.items())
        print(f"by label: mAP {labels.mean_average_precision:.1%}, {found} ({scores.labelled:,} pictures)")
        worst = sorted(labels.by_label.items(), key=lambda pair: pair[1])
        for label, precision in worst[:_LABELS_SHOWN]:
            print(f"  {precision:6.1%}  {printable(label)}")
        if len(worst) > _LABELS_SHOWN:
            print(f"  and {len(worst) - _LABELS_SHOWN:,} labels above these")
    for level, of_level in (scores.landmarks or {}).items():
        if of_level.queries:
            found = ", ".join(f"mP@{k} {share:.1%}" for k, share in of_level.precision.items())
            print(f"{level}: mAP {of_level.mean_average_precision:.1%}, {found} ({of_level.queries:,} queries)")

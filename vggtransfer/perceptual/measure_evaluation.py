"""`vggtransfer similarity evaluate`: do measures agree with people?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.perceptual.measure_names import MeasureName

if TYPE_CHECKING:
    import torch

    from vggtransfer.perceptual.judgements import JudgedSet
    from vggtransfer.perceptual.measures import Measure


@dataclass(frozen=True)
class SetScore:
    """How one measure did on one set of judgements.

    Attributes:
        name: Of the set.
        kind: `2afc` or `jnd`.
        judgements: How many.
        metric: Name of the measure.
        score: Mean agreement (2AFC) or average precision (JND), 0 to 1.
        rank_correlation: Spearman's, between what the measure and what people say: how much closer the second picture
            is (2AFC), how different the two are (JND).
        people: Agreement of one more person (2AFC), 0 to 1; None for JND.
    """

    name: str
    kind: Literal["2afc", "jnd"]
    judgements: int
    metric: str
    score: float
    rank_correlation: float
    people: float | None


@dataclass(frozen=True)
class MeasureEvaluation:
    """What `similarity evaluate` found: one score for each set and metric, and the metrics' stamps."""

    scores: tuple[SetScore, ...]
    stamps: Mapping[str, Mapping[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        return {
            "stamps": [dict(stamp) for stamp in self.stamps.values()],
            "scores": [dict(vars(score)) for score in self.scores],
        }


def evaluate_measures(
    data: Path,
    *,
    metric: list[MeasureName] | str = "lpips,psnr,ssim",
    net: ArchitectureName = "vgg16_bn_x0_25",
    weights: str = "default",
    heads: str = "auto",
    dists_heads: str = "auto",
    batch_size: int = 32,
    precision: Precision = "fp32",
    device: str = "auto",
    format: Literal["table", "json"] = "table",  # noqa: A002
) -> MeasureEvaluation:
    """Tells how well measures of similarity agree with people, on data in the layout of BAPPS (Zhang et al. 2018).

    2AFC sets (which of two pictures is closer to the reference?) have the folders `ref`, `p0`, `p1` and `judge`, with
    the share of people who chose `p1` in one `.npy` file per question. JND sets (are the two the same?) have `p0`, `p1`
    and `same`. The score of a 2AFC set is the mean share of people who chose as the measure does, half for ties; that
    of a JND set the average precision. Rank correlations are Spearman's.

    Args:
        data: A folder of one set, or any folder above several, such as BAPPS' `2afc/val`.
        metric: A comma list of `lpips`, `dists`, `psnr` and `ssim`.
        net: Network that lpips and dists look through.
        weights: Its weights: `default`, `torchvision`, `timm`, `embedded`, `none`, or a file or run directory.
        heads: Learned weights of lpips: `lpips`, a file, `none`; `auto` is `lpips` with vgg16, else `none`.
        dists_heads: Learned weights of dists: `DISTS_pytorch`, a file, `none`; `auto` as above.
        batch_size: Questions per pass through the network.
        precision: Of lpips and dists; `auto` uses bfloat16 where the hardware is good at it.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        format: A table for people, or one JSON object.

    Returns:
        The scores of each set and metric.

    Raises:
        VGGTransferError: An option, a file or the data cannot be used.
    """
    names = [name.strip() for name in metric.split(",")] if isinstance(metric, str) else list(metric)
    given = {name: value for name, value in locals().items() if name not in ("metric", "names")}
    data = checked_values(evaluate_measures, given)["data"]
    if batch_size < 1:
        raise OptionError(f"--batch-size {batch_size} is not possible: use 1 or more")
    from vggtransfer.encoder.precision import resolve_device, resolve_precision
    from vggtransfer.perceptual.judgements import find_judged_sets
    from vggtransfer.perceptual.measures import build_measures

    chosen_device = resolve_device(device)
    sets = find_judged_sets(data)
    measures = build_measures(
        names,
        net=net,
        weights=None if weights == "none" else weights,
        heads=heads,
        dists_heads=dists_heads,
        compute_type=resolve_precision(precision, chosen_device),
        resize="none",
    )
    scores = tuple(score for one in sets for score in _scores(one, measures, batch_size, chosen_device))
    result = MeasureEvaluation(scores, {measure.name: measure.stamp for measure in measures})
    if format == "json":
        from vggtransfer.report.json_output import print_json

        print_json(result.as_dict())
    else:
        _print_table(result)
    return result


def _scores(judged: JudgedSet, measures: list[Measure], batch_size: int, device: torch.device) -> list[SetScore]:
    import numpy as np
    import torch

    from vggtransfer.errors import DataError
    from vggtransfer.perceptual.agreement import (
        just_noticeable_score,
        people_score,
        rank_correlation,
        two_alternative_score,
    )
    from vggtransfer.perceptual.pictures import read_picture
    from vggtransfer.progress_bar import ProgressBar

    # Distances [questions, 1 or 2] of each measure: to the first picture, or of both to the reference.
    distances: dict[str, list[torch.Tensor]] = {measure.name: [] for measure in measures}
    total = len(judged.judgements)
    with ProgressBar(judged.name, steps=total, shown=True) as bar:
        for start in range(0, total, batch_size):
            part = judged.judgements[start : start + batch_size]
            columns = [
                [read_picture(path) for path in paths] for paths in zip(*(one.pictures for one in part), strict=True)
            ]
            if len({picture.shape for column in columns for picture in column}) > 1:
                raise DataError(f"{judged.name}: pictures of several sizes, such as {part[0].pictures[0]}")
            reference, *others = (torch.cat(column).to(device) for column in columns)
            for measure in measures:
                sign = -1 if measure.closer_is_higher else 1
                values = [sign * measure(other, reference).values for other in others]
                distances[measure.name].append(torch.stack(values, dim=1).double().cpu())
            bar.advance(steps=len(part))
    share = np.array([one.share for one in judged.judgements])
    found = []
    for name, chunks in distances.items():
        of_pictures = torch.cat(chunks).numpy().T
        if judged.kind == "2afc":
            first, second = of_pictures
            lead = np.where(first == second, 0.0, first - second)  # equal may mean infinite
            score, correlation = two_alternative_score(first, second, share), rank_correlation(lead, share)
            people = people_score(share)
        else:
            if not share.any():
                raise DataError(
                    f"{judged.name}: nobody took any two pictures for the same, so there is nothing to find"
                )
            score, correlation = (
                just_noticeable_score(of_pictures[0], share),
                rank_correlation(of_pictures[0], 1 - share),
            )
            people = None
        found.append(SetScore(judged.name, judged.kind, total, name, score, correlation, people))
    return found


def _print_table(result: MeasureEvaluation) -> None:
    from vggtransfer.perceptual.similarity import described
    from vggtransfer.printable import printable
    from vggtransfer.report.console import plain_table, print_table

    headings = ("set", "kind", "judgements", "metric", "score", "rank correlation", "people")
    table = plain_table(*headings, numbers=("judgements", "score", "rank correlation", "people"))
    for one in result.scores:
        people = "" if one.people is None else f"{one.people:.1%}"
        cells = (one.kind, f"{one.judgements:,}", one.metric, f"{one.score:.1%}", f"{one.rank_correlation:.3f}", people)
        table.add_row(printable(one.name), *cells)
    print_table(table)
    for name, stamp in result.stamps.items():
        print(f"{name}: {printable(described(stamp))}")

"""Pairs of picture files through the measures, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vggtransfer.errors import BadImageError, InputError
from vggtransfer.perceptual.difference_maps import difference_picture
from vggtransfer.perceptual.lpips import LPIPS
from vggtransfer.perceptual.measures import Measure, PerceptualMeasure
from vggtransfer.perceptual.picture_pairs import PicturePair
from vggtransfer.perceptual.pictures import as_picture, read_picture, write_picture
from vggtransfer.perceptual.similarity_result import NotCompared, PairSimilarity
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.report.result_folder import writing_results

HEAT_MAPS = "heat_maps"


def compare_pairs(
    pairs: Sequence[PicturePair],
    measures: Sequence[Measure],
    *,
    short_side: int | None,
    hottest: float | None,
    device: torch.device,
    out: Path | None,
) -> tuple[tuple[PairSimilarity, ...], tuple[NotCompared, ...]]:
    """Compares all pairs and, where there is a folder and lpips among the measures, draws where they differ.

    Args:
        pairs: What to compare.
        measures: By what.
        short_side: See `read_picture`.
        hottest: Distance with the hottest colour; None is the largest of each picture.
        device: Where to compute.
        out: Folder for `heat_maps/`.

    Returns:
        The pairs that could be compared, and those that could not.

    Raises:
        OptionError: A heat map cannot be written.
    """
    found: list[PairSimilarity] = []
    failed: list[NotCompared] = []
    with ProgressBar("comparing", steps=len(pairs), shown=len(pairs) > 1) as bar:
        for pair in pairs:
            try:
                found.append(_compare(pair, measures, short_side=short_side, hottest=hottest, device=device, out=out))
            except (BadImageError, InputError) as error:
                failed.append(NotCompared(pair.name, str(error)))
            bar.advance()
    return tuple(found), tuple(failed)


def _compare(
    pair: PicturePair,
    measures: Sequence[Measure],
    *,
    short_side: int | None,
    hottest: float | None,
    device: torch.device,
    out: Path | None,
) -> PairSimilarity:
    x, y = (read_picture(path, short_side=short_side).to(device) for path in (pair.a, pair.b))
    if x.shape != y.shape:
        resized = " after --resize" if short_side is not None else ""
        remedy = "crop one of them" if short_side is not None else "give --resize, or crop one of them"
        raise InputError(
            f"{pair.a} has {x.shape[3]}x{x.shape[2]} pixels and {pair.b} {y.shape[3]}x{y.shape[2]}{resized}; {remedy}"
        )
    values: dict[str, float] = {}
    layers: dict[str, dict[str, float]] = {}
    for measure in measures:
        measured = measure(x, y)
        values[measure.name] = measured.values.item()
        if measured.layers:
            layers[measure.name] = {layer: value.item() for layer, value in measured.layers.items()}
    heat_map, highest = None, None
    perceptual = [measure for measure in measures if isinstance(measure, PerceptualMeasure)]
    lpips = [measure for measure in perceptual if isinstance(measure.loss, LPIPS)]
    if out is not None and lpips:
        distances = lpips[0].distance_map(x, y)[0, 0].float()
        highest = distances.max().item() if hottest is None else hottest
        drawn = difference_picture(as_picture(x), as_picture(y), distances.cpu().numpy(), hottest=highest)
        heat_map = out / HEAT_MAPS / (pair.name if pair.name.endswith(".png") else f"{pair.name}.png")
        with writing_results(out, asked=True):
            write_picture(heat_map, drawn)
    return PairSimilarity(pair.name, pair.a, pair.b, values, layers, heat_map, highest)

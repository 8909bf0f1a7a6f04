"""`vggtransfer similarity distortions`: do measures see that more of a distortion is more?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import DataError, OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.perceptual.measure_names import MeasureName

if TYPE_CHECKING:
    import torch

    from vggtransfer.perceptual.distortions import DistortionName
    from vggtransfer.perceptual.measures import Measure


@dataclass(frozen=True)
class DistortionScore:
    """How one measure ranks the strengths of one distortion.

    Attributes:
        distortion: Its name.
        metric: Name of the measure.
        ordered: Share of pairs of strengths, on the same picture, in the right order (half for ties), 0 to 1.
        rank_correlation: Spearman's, between strength and distance over all pictures together: high only if a strength
            has about the same distance on every picture.
        medians: Median of the measure's values at each strength, as the measure gives them.
    """

    distortion: DistortionName
    metric: str
    ordered: float
    rank_correlation: float
    medians: tuple[float, ...]


@dataclass(frozen=True)
class DistortionRanking:
    """What `similarity distortions` found.

    Attributes:
        scores: One for each distortion and metric.
        pictures: How many pictures were distorted.
        too_small: How many were left out because the window does not fit into them.
        unreadable: Why others were left out, which could not be decoded.
        size: Side of the window in pixels.
        stamps: What the values of each metric depend on besides the pictures.
    """

    scores: tuple[DistortionScore, ...]
    pictures: int
    too_small: int
    unreadable: tuple[str, ...]
    size: int
    stamps: Mapping[str, Mapping[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        from vggtransfer.perceptual.distortions import STRENGTHS

        return {
            "pictures": self.pictures,
            "too_small": self.too_small,
            "unreadable": list(self.unreadable),
            "size": self.size,
            "strengths": {name: list(values) for name, values in STRENGTHS.items()},
            "stamps": [dict(stamp) for stamp in self.stamps.values()],
            "scores": [{**vars(score), "medians": list(score.medians)} for score in self.scores],
        }


def rank_distortions(
    data: Path,
    *,
    pictures: int = 100,
    size: int = 192,
    metric: list[MeasureName] | str = "lpips,psnr,ssim",
    net: ArchitectureName = "vgg16_bn_x0_25",
    weights: str = "default",
    heads: str = "auto",
    dists_heads: str = "auto",
    seed: int = 0,
    precision: Precision = "fp32",
    device: str = "auto",
    format: Literal["table", "json"] = "table",  # noqa: A002
) -> DistortionRanking:
    """Distorts photographs in known strengths and tells how well measures of similarity rank them; needs no judgements.

    Five distortions in five strengths each: blur (standard deviation 0.5 to 4 pixels), noise (4 to 40 of 255), JPEG
    (quality 70 to 7), shift (1 to 12 pixels) and colour (hues turned by 5 to 80 degrees). Compared is a window in the
    middle of each photograph, not resized, whose corner lies at a multiple of 16 pixels, so that the blocks of the JPEG
    compression lie on those that the photograph may already have.

    Strengths of different distortions are not compared: nobody knows which blur is as bad as which noise. Whether a
    measure agrees with people, `vggtransfer similarity evaluate` tells.

    Args:
        data: A folder of photographs.
        pictures: Use so many of them, at equal distances in the order of their names.
        size: Side of the window in pixels; photographs need 32 more in both directions.
        metric: A comma list of `lpips`, `dists`, `psnr` and `ssim`.
        net: Network that lpips and dists look through.
        weights: Its weights: `default`, `torchvision`, `timm`, `embedded`, `none`, or a file or run directory.
        heads: Learned weights of lpips: `lpips`, a file, `none`; `auto` is `lpips` with vgg16, else `none`.
        dists_heads: Learned weights of dists: `DISTS_pytorch`, a file, `none`; `auto` as above.
        seed: Of the noise.
        precision: Of lpips and dists; `auto` uses bfloat16 where the hardware is good at it.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        format: A table for people, or one JSON object, with medians as well.

    Returns:
        One score for each distortion and metric.

    Raises:
        VGGTransferError: An option or a file cannot be used, or there are no photographs large enough.
    """
    names = [name.strip() for name in metric.split(",")] if isinstance(metric, str) else list(metric)
    given = {name: value for name, value in locals().items() if name not in ("metric", "names")}
    data = checked_values(rank_distortions, given)["data"]
    if not 1 <= pictures <= 10**6 or not 32 <= size <= 4096:
        raise OptionError(f"--pictures {pictures}, --size {size}: use at least 1 picture and 32 to 4,096 pixels")
    from vggtransfer.data.picture_files import list_pictures
    from vggtransfer.encoder.precision import resolve_device, resolve_precision
    from vggtransfer.perceptual.measures import build_measures

    chosen_device = resolve_device(device)
    files = list_pictures([data])
    measures = build_measures(
        names,
        net=net,
        weights=None if weights == "none" else weights,
        heads=heads,
        dists_heads=dists_heads,
        compute_type=resolve_precision(precision, chosen_device),
        resize="none",
    )
    chosen = files if len(files) <= pictures else [files[place * len(files) // pictures] for place in range(pictures)]
    values, too_small, unreadable = _values(chosen, measures, size=size, seed=seed, device=chosen_device)
    if len(unreadable) == len(chosen):
        raise DataError(f"none of {len(chosen)} pictures can be read, the first: {unreadable[0]}")
    if too_small == len(chosen) - len(unreadable):
        raise DataError(f"{data}: all {too_small} pictures are too small for a window of {size} pixels; lower --size")
    result = DistortionRanking(
        _scores(values, measures),
        len(chosen) - len(unreadable) - too_small,
        too_small,
        unreadable,
        size,
        {measure.name: measure.stamp for measure in measures},
    )
    if format == "json":
        from vggtransfer.report.json_output import print_json

        print_json(result.as_dict())
    else:
        _print_table(result)
    return result


def _values(
    files: list[Path], measures: list[Measure], *, size: int, seed: int, device: torch.device
) -> tuple[dict[DistortionName, dict[str, list[list[float]]]], int, tuple[str, ...]]:
    """Returns values by distortion, metric, picture, strength; how many are too small; why others are unreadable."""
    import torch

    from vggtransfer.data.decode import decode_image
    from vggtransfer.errors import BadImageError
    from vggtransfer.perceptual.distortions import STRENGTHS, cut, distorted, window
    from vggtransfer.perceptual.pictures import as_tensor
    from vggtransfer.progress_bar import ProgressBar
    from vggtransfer.training.sampling import keyed_seed

    values: dict[DistortionName, dict[str, list[list[float]]]] = {
        kind: {measure.name: [] for measure in measures} for kind in STRENGTHS
    }
    too_small, unreadable = 0, []
    with ProgressBar("distorting", steps=len(files), shown=True) as bar:
        for number, path in enumerate(files):
            bar.advance()
            try:
                photograph = decode_image(path)
            except BadImageError as error:
                unreadable.append(str(error))
                continue
            place = window(photograph, size)
            if place is None:
                too_small += 1
                continue
            reference = as_tensor(cut(photograph, place, size)).to(device)
            for kind, strengths in STRENGTHS.items():
                spoilt = [
                    distorted(
                        photograph, kind, strength, place=place, size=size, seed=keyed_seed(kind, seed, number, level)
                    )
                    for level, strength in enumerate(strengths)
                ]
                batch = torch.cat([as_tensor(picture) for picture in spoilt]).to(device)
                for measure in measures:
                    compared = measure(batch, reference.expand_as(batch))
                    values[kind][measure.name].append(compared.values.double().tolist())
    return values, too_small, tuple(unreadable)


def _scores(
    values: dict[DistortionName, dict[str, list[list[float]]]], measures: list[Measure]
) -> tuple[DistortionScore, ...]:
    import numpy as np

    from vggtransfer.perceptual.agreement import ordered_share, rank_correlation

    scores = []
    for kind, by_metric in values.items():
        for measure in measures:
            found = np.array(by_metric[measure.name])
            distances = -found if measure.closer_is_higher else found
            strengths = np.broadcast_to(np.arange(found.shape[1], dtype=np.float64), found.shape)
            scores.append(
                DistortionScore(
                    kind,
                    measure.name,
                    ordered_share(distances),
                    rank_correlation(distances.flatten(), strengths.flatten()),
                    tuple(np.median(found, axis=0).tolist()),
                )
            )
    return tuple(scores)


def _print_table(result: DistortionRanking) -> None:
    from vggtransfer.perceptual.similarity import described
    from vggtransfer.printable import printable
    from vggtransfer.report.console import plain_table, print_table

    metrics = list(result.stamps)
    for title, name, form in (("in order", "ordered", ".1%"), ("rank correlation", "rank_correlation", ".3f")):
        table = plain_table(title, *metrics, numbers=tuple(metrics))
        for kind in dict.fromkeys(score.distortion for score in result.scores):
            row = [getattr(score, name) for score in result.scores if score.distortion == kind]
            table.add_row(kind, *(format(value, form) for value in row))
        print_table(table)
    left_out = f"; {result.too_small} more were too small" if result.too_small else ""
    print(f"{result.pictures} photographs, a window of {result.size}x{result.size} pixels each{left_out}")
    for reason in result.unreadable:
        print(f"left out: {printable(reason)}")
    for name, stamp in result.stamps.items():
        print(f"{name}: {printable(described(stamp))}")

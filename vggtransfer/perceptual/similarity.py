"""`vggtransfer similarity`: how different two pictures, or the pictures of two folders, look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import DataError, OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.perceptual.measure_names import MeasureName
from vggtransfer.perceptual.similarity_result import PairSimilarity, SimilarityResult

if TYPE_CHECKING:
    import torch

    from vggtransfer.perceptual.measures import Measure


def similarity(
    a: Path,
    b: Path,
    *,
    metric: list[MeasureName] | str = "lpips,psnr,ssim",
    net: ArchitectureName = "vgg16_bn_x0_25",
    weights: str = "default",
    heads: str = "auto",
    dists_heads: str = "auto",
    resize: int | None = None,
    heat_scale: float | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    format: Literal["table", "csv", "json"] = "table",  # noqa: A002
    out: Path | None = None,
) -> SimilarityResult:
    """Tells how different two pictures look, or the pictures of two folders that have the same names.

    Without further options it needs no download: LPIPS distances come from the small network in this package. They are
    not calibrated on human judgements and not those of the literature, so they are called `lpips-uncalibrated`. For
    published LPIPS: `--net vgg16`, with the `lpips` package installed for its linear heads (`pip install lpips`); the
    weights of VGG16 are downloaded once.

    Args:
        a: A picture, or a folder of pictures.
        b: Another picture, or a folder with pictures of the same names; their endings and formats may differ.
        metric: A comma list of `lpips` (Zhang et al. 2018), `dists` (Ding et al. 2020), `psnr` and `ssim`. For the
            first two less is more similar, for the others more.
        net: Network that lpips and dists look through.
        weights: Its weights: `default`, `torchvision`, `timm`, `embedded`, a checkpoint file or a run directory.
        heads: Learned weights of lpips: `lpips` takes those of the installed package, or a file such as its
            `vgg.pth`; `none` for none; `auto` is `lpips` with vgg16, else `none`.
        dists_heads: Learned weights of dists: `DISTS_pytorch` takes those of the installed package, or a file; `none`
            for none; `auto` is `DISTS_pytorch` with vgg16, else `none`.
        resize: Bring the short side of every picture to so many pixels first; for dists its authors use 256. Default:
            compare as they are; two pictures of different sizes cannot be compared.
        heat_scale: Distance that is shown hottest in the heat maps; default: the largest of each picture.
        precision: Of lpips and dists. `fp32` for values to be published; `auto` uses bfloat16 where the hardware is
            good at it.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        format: A table for people; CSV with one line per pair, layer by layer; or one JSON object with everything.
        out: Folder for `similarity.csv`, `similarity.json`, `environment.json` and, with lpips, `heat_maps/`: pictures
            of where the two differ. Default: nothing is written.

    Returns:
        The values, pair by pair.

    Raises:
        VGGTransferError: An option, a file or a folder cannot be used, or no pair at all can be compared.
    """
    names = [name.strip() for name in metric.split(",")] if isinstance(metric, str) else list(metric)
    given = {name: value for name, value in locals().items() if name not in ("metric", "names")}
    given = checked_values(similarity, given)
    a, b, out, resize, heat_scale = (given[name] for name in ("a", "b", "out", "resize", "heat_scale"))
    if resize is not None and not 16 <= resize <= 8192:
        raise OptionError(f"--resize {resize} is not possible: use 16 to 8,192")
    if heat_scale is not None and not heat_scale > 0:
        raise OptionError(f"--heat-scale {heat_scale} is not possible: use a distance above 0")
    from vggtransfer.encoder.precision import resolve_device, resolve_precision
    from vggtransfer.perceptual.measures import build_measures
    from vggtransfer.perceptual.picture_pairs import pair_pictures
    from vggtransfer.report.result_folder import check_result_folder

    chosen_device = resolve_device(device)
    compute_type = resolve_precision(precision, chosen_device)
    check_result_folder(out)
    paired = pair_pictures(a, b)
    measures = build_measures(
        names,
        net=net,
        weights=None if weights == "none" else weights,
        heads=heads,
        dists_heads=dists_heads,
        compute_type=compute_type,
        resize="none" if resize is None else f"short side {resize}",
    )
    from vggtransfer.perceptual.pair_comparison import compare_pairs

    pairs, failed = compare_pairs(
        paired.pairs, measures, short_side=resize, hottest=heat_scale, device=chosen_device, out=out
    )
    if not pairs:
        raise DataError(f"no pair could be compared; {failed[0].name}: {failed[0].reason}")
    stamps = {measure.name: measure.stamp for measure in measures}
    result = SimilarityResult(pairs, failed, paired.only_a, paired.only_b, stamps, out)
    if out is not None:
        _write(result, out, chosen_device)
    _print(result, measures, format)
    return result


def _write(result: SimilarityResult, out: Path, device: torch.device) -> None:
    from vggtransfer.cache import write_atomically
    from vggtransfer.report.json_output import json_text
    from vggtransfer.report.result_folder import writing_results
    from vggtransfer.training.run_directory import write_environment

    with writing_results(out, asked=True):
        for name, text in (("similarity.csv", result.as_csv()), ("similarity.json", json_text(result.as_dict()))):
            with write_atomically(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
        write_environment(out, device=device, processes=1)


def _print(result: SimilarityResult, measures: list[Measure], form: Literal["table", "csv", "json"]) -> None:
    match form:
        case "csv":
            print(result.as_csv(), end="")
        case "json":
            from vggtransfer.report.json_output import print_json

            print_json(result.as_dict())
        case "table":
            _print_table(result, measures)


def _print_table(result: SimilarityResult, measures: list[Measure]) -> None:
    from vggtransfer.printable import printable
    from vggtransfer.report.console import plain_table, print_table

    directions = {
        measure.name: "more is closer" if measure.closer_is_higher else "less is closer" for measure in measures
    }
    table = plain_table("picture", *directions, numbers=tuple(directions))
    for pair in result.pairs:
        table.add_row(printable(pair.name), *(f"{pair.values[name]:.4f}" for name in directions))
    if len(result.pairs) > 1:
        table.add_section()
        table.add_row(f"mean of {len(result.pairs)}", *(f"{mean:.4f}" for mean in result.means().values()))
    print_table(table)
    if len(result.pairs) == 1:
        _print_layers(result.pairs[0])
    for failed in result.failed:
        print(f"not compared: {printable(failed.name)}: {printable(failed.reason)}")
    for folder, paths in (("first", result.only_a), ("second", result.only_b)):
        for path in paths:
            print(f"only in the {folder} folder: {printable(path)}")
    for name, direction in directions.items():
        print(f"{name}: {direction}; {printable(described(result.stamps[name]))}")
    if result.out is not None:
        print(f"wrote {printable(result.out)}")


def _print_layers(pair: PairSimilarity) -> None:
    from vggtransfer.report.console import plain_table, print_table

    for metric, layers in pair.layers.items():
        table = plain_table(f"layers of {metric}", *layers, numbers=tuple(layers))
        table.add_row("", *(f"{value:.4f}" for value in layers.values()))
        print_table(table)


def described(stamp: Mapping[str, str]) -> str:
    """One line for people of what values depend on; the digests by their first digits."""
    shown = {
        name: value[:12] if name.endswith("digest") else value
        for name, value in stamp.items()
        if name != "metric" and value != ""
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())

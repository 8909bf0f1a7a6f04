"""`vggtransfer segment-evaluate`: how good the masks are that a network paints."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import DataError, OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.printable import printable
from vggtransfer.segmentation.view_names import TTA

if TYPE_CHECKING:
    from vggtransfer.data.scan import BadPicture
    from vggtransfer.segmentation.layouts import SplitName
    from vggtransfer.segmentation.metrics import SegmentationScores

Split = Literal["auto", "train", "val", "test", "all"]
Kept = Literal["train", "val", "unseen"]


@dataclass(frozen=True)
class SegmentEvaluationResult:
    """What `segment_evaluate` measured.

    Attributes:
        model: The model, as given.
        data: The data folder, as given.
        split: What of it was measured.
        tta: Test-time augmentation.
        tile: Side of the tiles, if any.
        pictures: Number of pictures.
        classes: Names, in the order of the scores by class.
        scores: Over the pixels of all pictures, at the masks' own size.
        boundary_f1: Of each class; NaN for those that do not occur.
        by_picture: Path, mean IoU and share of right pixels of each.
        trained_on: How many of them are in the training set of the model; None if that is not known.
        bad: Files that were left out.
        out: The folder that was written; None if `runs/segment-evaluate` cannot be.
    """

    model: Path
    data: Path
    split: str
    tta: str
    tile: int | None
    pictures: int
    classes: tuple[str, ...]
    scores: SegmentationScores
    boundary_f1: tuple[float, ...]
    by_picture: tuple[tuple[Path, float, float], ...]
    trained_on: int | None
    bad: tuple[BadPicture, ...]
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it; what is not known is null."""
        scores = self.scores
        rows = zip(self.classes, scores.iou, scores.dice, scores.accuracy, self.boundary_f1, strict=True)
        columns = ("class", "iou", "dice", "accuracy", "boundary_f1")
        return {
            "model": str(self.model),
            "data": str(self.data),
            "split": self.split,
            "tta": self.tta,
            "tile": self.tile,
            "pictures": self.pictures,
            "mean_iou": _known(scores.mean_iou),
            "mean_dice": _known(scores.mean_dice),
            "mean_accuracy": _known(scores.mean_accuracy),
            "pixel_accuracy": _known(scores.pixel_accuracy),
            "weighted_iou": _known(scores.weighted_iou),
            "classes": [dict(zip(columns, [name, *map(_known, values)], strict=True)) for name, *values in rows],
            "by_picture": [
                {"path": str(path), "mean_iou": _known(iou), "pixel_accuracy": _known(accuracy)}
                for path, iou, accuracy in self.by_picture
            ],
            "trained_on": self.trained_on,
            "bad_images": [{"path": str(picture.path), "reason": picture.reason} for picture in self.bad],
            "out": None if self.out is None else str(self.out),
        }


def segment_evaluate(
    data: Path,
    *,
    model: Path,
    split: Split = "auto",
    classes: str | int | None = None,
    ignore: str | int | None = None,
    tta: TTA = "none",
    tile: int | None = None,
    overlap: float | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    on_bad_image: Literal["skip", "stop"] = "skip",
    format: Literal["table", "json"] = "table",  # noqa: A002
    out: Path | None = None,
) -> SegmentEvaluationResult:
    """Measures a network on pictures with masks: intersection over union, Dice, accuracy and boundary F1 by class.

    Scores are those of masks in full size, whatever size the network sees. Pictures that it was trained on are
    recognised by their content, from the record in its run directory: they are left out of a folder without splits,
    and counted in a warning elsewhere.

    Args:
        data: Folder with pictures and masks, as for `segment`.
        model: Run directory of `segment`, or its `model.safetensors`.
        split: `auto` takes test, else val, else the pictures of a folder without splits that the model was not trained
            on; `train` and `val`, in such a folder, the model's own; `all` takes everything there is.
        classes: Where the masks mean something else than those the model was trained on: see `segment`. The classes
            must be the model's.
        ignore: The same.
        tta: `flip` averages a picture's probabilities with those of its mirror image.
        tile: Side of square tiles, in pixels of the size at which the network sees pictures; default: whole pictures,
            tiles of 1024 for those of more than 4 million pixels.
        overlap: Part of a tile's side that it shares with its neighbour at least; default: 0.25.
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        on_bad_image: `skip` leaves out pairs that cannot be read or do not fit and names them; `stop` ends with the
            first one.
        format: A table for people, or one JSON object.
        out: Folder for `report.html`, `evaluation.json`, `bad_images.csv` and `environment.json`; default:
            `runs/segment-evaluate/N` with the next free N. A default folder that cannot be written is a warning.

    Returns:
        What was measured, and the folder that was written.

    Raises:
        VGGTransferError: An option, the model or the data cannot be used; says which and what to do.
    """
    given = checked_values(segment_evaluate, locals())
    data, model, out = given["data"], given["model"].expanduser(), given["out"]
    from vggtransfer.encoder.precision import resolve_device, resolve_precision
    from vggtransfer.report.result_folder import check_result_folder, writing_results
    from vggtransfer.segmentation.evaluation_files import print_tables, write_evaluation
    from vggtransfer.segmentation.inference import Painter, check_inference_options
    from vggtransfer.segmentation.measuring import measure
    from vggtransfer.segmentation.model import load_segmenter
    from vggtransfer.segmentation.pictures import load_pictures
    from vggtransfer.segmentation.report import write_evaluation_report
    from vggtransfer.training.training_record import read_training_record

    check_inference_options(tile=tile, overlap=overlap)
    chosen_device = resolve_device(device)
    resolve_precision(precision, chosen_device)  # refuses before thousands of pictures are read, not after
    check_result_folder(out)
    trained = load_segmenter(model)
    record = read_training_record(model)
    splits, keep = _choose(data, split, record is not None)
    pictures = load_pictures(
        data,
        classes=classes,
        ignore=ignore,
        task="auto",
        val_fraction=0.2,
        seed=0,
        on_bad_image=on_bad_image,
        coding=trained.coding if classes is None and ignore is None else None,
        splits=splits,
        progress=True,
    )
    if (pictures.coding.names, pictures.coding.task) != (trained.coding.names, trained.coding.task):
        raise DataError(
            f"{data} has {pictures.coding.task} masks of {', '.join(pictures.coding.names)}; the model paints "
            f"{trained.coding.task} masks of {', '.join(trained.coding.names)}"
        )
    for warning in pictures.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    samples = [*pictures.train, *pictures.val, *pictures.test]
    if record is not None and keep is not None:
        wanted = record.train if keep == "unseen" else record.of(keep)
        samples = [one for one in samples if (pictures.hashes[one.path] in wanted) == (keep != "unseen")]
        if not samples:
            raise DataError(
                f"none of the pictures of {data} is {'new to' if keep == 'unseen' else f'in the split {keep} of'} this "
                "model; --split all measures it on all of them all the same"
            )
    trained_on = None if record is None else sum(pictures.hashes[one.path] in record.train for one in samples)
    if trained_on != 0:
        known = "which pictures the model was trained on is not known; they may be among these"
        many = f"{trained_on} of {len(samples)} pictures were in the training set of this model"
        print(f"warning: {known if trained_on is None else many}", file=sys.stderr)
    painter = Painter(trained, device=chosen_device, precision=precision, tta=tta, tile=tile, overlap=overlap)
    measured = measure(painter, samples, pictures.coding, title="evaluating")
    folder = _new_folder() if out is None else out
    result = SegmentEvaluationResult(
        model=model,
        data=data,
        split="+".join(splits) if keep is None else keep,
        tta=tta,
        tile=tile,
        pictures=len(measured.rows),
        classes=trained.coding.names,
        scores=measured.scores,
        boundary_f1=measured.boundary_f1,
        by_picture=measured.rows,
        trained_on=trained_on,
        bad=(*pictures.bad, *measured.bad),
        out=folder,
    )
    print_tables(result, format)  # before anything is written: a full disk must not cost the numbers
    if folder is None:
        return result
    with writing_results(folder, asked=out is not None):
        write_evaluation(result, folder, device=chosen_device)
        report = write_evaluation_report(
            folder,
            trained=trained,
            device=chosen_device,
            model=model,
            pictures=pictures,
            measured=measured,
            split={"train": "training", "val": "validation", "test": "test"}.get(result.split, ""),
            views=_views(tta, tile),
            trained_on=trained_on,
            command=_command(given),
        )
        if format == "table":
            print(f"report: {printable(report)}")
    return result


def _choose(
    data: Path, split: Split, recorded: bool
) -> tuple[list[SplitName], Literal["train", "val", "unseen"] | None]:
    """What to load, and which of that to keep by the model's record; None keeps all."""
    from vggtransfer.segmentation.layouts import find_masked_pictures

    layout = find_masked_pictures(data)
    there = [name for name, samples in layout.splits.items() if samples]
    if split == "all":
        return there, None
    flat = not layout.has_splits
    if split == "auto":
        for name in ("test", "val"):
            if name in there:
                return [name], None
        return there, "unseen" if recorded else None
    if split in there and not flat:
        return [split], None
    if flat and recorded and split != "test":
        return there, split
    raise DataError(f"{data} has no split {split}, only {', '.join(there) if not flat else 'pictures without splits'}")


def _new_folder() -> Path | None:
    """Where results are kept if nobody said where; not being able to keep them is no reason to fail."""
    from vggtransfer.training.run_directory import create_run_directory

    try:
        return create_run_directory("segment-evaluate", None)
    except OptionError as error:
        print(f"warning: nothing is written: {error}", file=sys.stderr)
        return None


def _views(tta: str, tile: int | None) -> str:
    parts = [f"in tiles of {tile} pixels"] if tile is not None else []
    return " and ".join([*parts, *(["with their mirror images"] if tta == "flip" else [])])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _command(given: Mapping[str, object]) -> Sequence[str]:
    """The command that measures the same: all options that differ from their defaults."""
    words = ["vggtransfer", "segment-evaluate"]
    for name, parameter in inspect.signature(segment_evaluate).parameters.items():
        if given[name] != parameter.default and name != "format":
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    return words

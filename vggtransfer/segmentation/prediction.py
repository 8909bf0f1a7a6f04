"""`vggtransfer segment-predict`: masks for pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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


@dataclass(frozen=True)
class PredictedMask:
    """What was written for one picture.

    Attributes:
        path: The picture.
        masks: Its mask, or one for each class.
        overlay: The mask over the picture, if asked for.
        probabilities: float16 [classes, height, width] in NumPy's format, if asked for.
        shares: Part of the picture that each class takes, by name.
    """

    path: Path
    masks: tuple[Path, ...]
    overlay: Path | None
    probabilities: Path | None
    shares: dict[str, float]


@dataclass(frozen=True)
class SegmentPredictionResult:
    """What `segment_predict` painted.

    Attributes:
        model: The model, as given.
        out: The folder that was written.
        rows: One per picture that can be read, in the order they were given.
        bad: The other pictures.
    """

    model: Path
    out: Path
    rows: tuple[PredictedMask, ...]
    bad: tuple[BadPicture, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        return {
            "model": str(self.model),
            "out": str(self.out),
            "pictures": [
                {
                    "path": str(row.path),
                    "masks": [str(path) for path in row.masks],
                    "overlay": None if row.overlay is None else str(row.overlay),
                    "probabilities": None if row.probabilities is None else str(row.probabilities),
                    "shares": row.shares,
                }
                for row in self.rows
            ],
            "bad_images": [{"path": str(picture.path), "reason": picture.reason} for picture in self.bad],
        }


def segment_predict(
    paths: list[str],
    *,
    model: Path,
    out: Path,
    overlays: bool = True,
    probabilities: bool = False,
    tta: TTA = "none",
    tile: int | None = None,
    overlap: float | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    on_bad_image: Literal["skip", "stop"] = "skip",
    format: Literal["table", "json"] = "table",  # noqa: A002
) -> SegmentPredictionResult:
    """Paints masks for pictures, in their full size.

    Args:
        paths: Pictures, folders (with everything below them), patterns such as `photos/**/*.jpg`, or `-` for a list
            of these on standard input, one a line.
        model: Run directory of `segment`, or its `model.safetensors`.
        out: Folder for `masks/NAME.png`, with the values of the training masks and, where they are classes, their
            colours as a palette (`masks/CLASS/NAME.png` for multilabel); `overlays/NAME.jpg`, `probabilities/NAME.npy`,
            `predictions.json` and `bad_images.csv`.
        overlays: Write the masks over their pictures, too.
        probabilities: Write the probabilities of all classes, too: float16 [classes, height, width] in NumPy's format.
        tta: `flip` averages a picture's probabilities with those of its mirror image.
        tile: Side of square tiles, in pixels of the size at which the network sees pictures; default: whole pictures,
            tiles of 1024 for those of more than 4 million pixels.
        overlap: Part of a tile's side that it shares with its neighbour at least; default: 0.25.
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        on_bad_image: `skip` leaves unreadable pictures out and names them; `stop` ends with the first one.
        format: A summary for people, or one JSON object.

    Returns:
        What was painted, and where it was written.

    Raises:
        VGGTransferError: An option, the model or a picture cannot be used; says which and what to do.
    """
    given = checked_values(segment_predict, {name: value for name, value in locals().items() if name != "paths"})
    model, out = given["model"].expanduser(), given["out"]
    from vggtransfer.cache import write_atomically
    from vggtransfer.data.decode import decode_image
    from vggtransfer.data.picture_files import list_pictures
    from vggtransfer.data.scan import BadPicture, write_bad_pictures
    from vggtransfer.encoder.precision import resolve_device, resolve_precision
    from vggtransfer.errors import BadImageError
    from vggtransfer.progress_bar import ProgressBar
    from vggtransfer.report.json_output import json_text, print_json
    from vggtransfer.report.result_folder import check_result_folder, writing_results
    from vggtransfer.segmentation.inference import Painter, check_inference_options
    from vggtransfer.segmentation.model import load_segmenter
    from vggtransfer.segmentation.painted_files import PaintedFiles

    check_inference_options(tile=tile, overlap=overlap)
    chosen_device = resolve_device(device)
    resolve_precision(precision, chosen_device)
    check_result_folder(out)
    _spare_other_masks(out)
    # A single path given from Python would otherwise be read letter by letter.
    pictures = list_pictures([paths] if isinstance(paths, str | Path) else paths)
    trained = load_segmenter(model)
    painter = Painter(trained, device=chosen_device, precision=precision, tta=tta, tile=tile, overlap=overlap)
    files = PaintedFiles(out, pictures, trained.coding, overlays=overlays, probabilities=probabilities)
    rows: list[PredictedMask] = []
    bad: list[BadPicture] = []
    with writing_results(out, asked=True), ProgressBar("painting", steps=len(pictures), shown=True) as bar:
        for path in pictures:
            bar.advance()
            try:
                picture = decode_image(path)
            except BadImageError as error:
                bad.append(BadPicture.of(path, error))
                if on_bad_image == "stop":
                    raise bad[-1].stop() from None
                print(f"warning: left out {printable(path)}: {printable(bad[-1].reason)}", file=sys.stderr)
                continue
            rows.append(files.write(path, picture, painter(picture)))
        if not rows:
            raise DataError(f"none of {len(pictures)} pictures can be read, the first: {bad[0].path}: {bad[0].reason}")
        result = SegmentPredictionResult(model, out, tuple(rows), tuple(bad))
        with write_atomically(out / "predictions.json") as temporary:
            temporary.write_text(json_text(result.as_dict()) + "\n", encoding="utf-8")
        write_bad_pictures(out / "bad_images.csv", bad)
    if format == "json":
        print_json(result.as_dict())
    else:
        _print(result)
    return result


def _spare_other_masks(out: Path) -> None:
    """Refuses a data folder, whose true masks painted ones of the same names would replace."""
    if (out / "masks").is_dir() and not any((out / name).exists() for name in ("predictions.json", "overlays")):
        raise OptionError(f"--out {out}: has masks that are not from segment-predict; name another folder")


def _print(result: SegmentPredictionResult) -> None:
    from vggtransfer.report.console import plain_table, print_table

    shares: dict[str, Sequence[float]] = {
        name: [row.shares[name] for row in result.rows] for name in result.rows[0].shares
    }
    columns = ("share of the pixels", "pictures with it")
    table = plain_table("class", *columns, numbers=columns)
    for name, found in shares.items():
        table.add_row(printable(name), f"{sum(found) / len(found):.1%}", f"{sum(share > 0 for share in found):,}")
    print_table(table)
    print(f"wrote masks of {len(result.rows):,} pictures to {printable(result.out)}")

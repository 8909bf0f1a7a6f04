"""`vggtransfer predict`: the most probable classes of pictures."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vggtransfer.classification.views import TTA
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values

if TYPE_CHECKING:
    from vggtransfer.data.scan import BadPicture


class LabelProbability(NamedTuple):
    """A class and its probability in [0, 1]."""

    label: str
    probability: float


@dataclass(frozen=True)
class PicturePrediction:
    """The most probable classes of one picture, the most probable first."""

    path: Path
    predictions: tuple[LabelProbability, ...]

    @property
    def label(self) -> str:
        return self.predictions[0].label


@dataclass(frozen=True)
class PredictionResult:
    """What `predict` found.

    Attributes:
        model: The model, as given.
        rows: One per picture that can be read, in the order they were given.
        bad: The other pictures.
        out: The file written, if any.
    """

    model: Path
    rows: tuple[PicturePrediction, ...]
    bad: tuple[BadPicture, ...]
    out: Path | None

    @property
    def labels(self) -> dict[Path, str]:
        """The most probable class by picture."""
        return {row.path: row.label for row in self.rows}

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        read = [
            {
                "path": str(row.path),
                "status": "ok",
                "predictions": [prediction._asdict() for prediction in row.predictions],
            }
            for row in self.rows
        ]
        bad = [{"path": str(picture.path), "status": "bad", "reason": picture.reason} for picture in self.bad]
        return {"model": str(self.model), "pictures": read + bad, "out": None if self.out is None else str(self.out)}

    def as_csv(self) -> str:
        """One line per picture that can be read: path, label, probability, label_2, probability_2, ..."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        ranks = range(1, len(self.rows[0].predictions) + 1)
        columns = [name if rank == 1 else f"{name}_{rank}" for rank in ranks for name in ("label", "probability")]
        writer.writerow(["path", *columns])
        for row in self.rows:
            cells = (cell for label, probability in row.predictions for cell in (label, f"{probability:.6f}"))
            writer.writerow([str(row.path), *cells])
        return text.getvalue()


def predict(
    paths: list[str],
    *,
    model: Path,
    top_k: int = 5,
    batch_size: int = 64,
    precision: Precision = "auto",
    device: str = "auto",
    workers: int | None = None,
    tta: TTA = "none",
    on_bad_image: Literal["skip", "stop"] = "skip",
    format: Literal["table", "csv", "json"] = "table",  # noqa: A002
    out: Path | None = None,
) -> PredictionResult:
    """Tells the most probable classes of pictures, and how probable the model holds them.

    Args:
        paths: Pictures, folders (with everything below them), patterns such as `photos/**/*.jpg`, or `-` for a list
            of these on standard input, one a line.
        model: Run directory of `finetune`, or its `model.safetensors`.
        top_k: Classes per picture; all of them if the model has fewer.
        batch_size: Pictures per pass through the network.
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        workers: Processes that load pictures; default: chosen for the machine.
        tta: Views whose probabilities are averaged: `none` is the centre crop alone, `flip` adds its mirror image,
            `five-crop` the four corners, `ten-crop` both.
        on_bad_image: `skip` leaves unreadable pictures out and names them; `stop` ends with the first one.
        format: A table for people; CSV with one line per picture and the columns path, label, probability, label_2,
            probability_2, ...; or one JSON object, which lists unreadable pictures as well.
        out: File to write the predictions to as well, `.csv` or `.json`.

    Returns:
        The predictions; `result.labels` maps each picture to its class.

    Raises:
        VGGTransferError: An option, the model or a path cannot be used, or no picture at all can be read.
    """
    given = checked_values(predict, {name: value for name, value in locals().items() if name != "paths"})
    model, out = given["model"], given["out"]
    if top_k < 1:
        raise OptionError(f"top_k={top_k} is not possible: it must be at least 1")
    if out is not None and out.suffix.lower() not in (".csv", ".json"):
        raise OptionError(f"--out {out}: the file name must end in .csv or .json")
    from vggtransfer.classification.inference import check_scoring_options, score_files
    from vggtransfer.classification.model import load_classifier
    from vggtransfer.encoder.precision import resolve_device, resolve_precision

    check_scoring_options(batch_size=batch_size, workers=workers, tta=tta)
    chosen_device = resolve_device(device)
    resolve_precision(precision, chosen_device)  # refuses before thousands of pictures are read, not after

    classifier = load_classifier(model).to(chosen_device)
    read, probabilities, bad = score_files(
        classifier,
        paths,
        on_bad_image=on_bad_image,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
        tta=tta,
        progress="predicting",
    )
    classes = classifier.task.classes
    best = probabilities.topk(min(top_k, len(classes)), dim=1)
    rows = tuple(
        PicturePrediction(
            path,
            tuple(LabelProbability(classes[label], value) for value, label in zip(values, labels, strict=True)),
        )
        for path, values, labels in zip(read, best.values.tolist(), best.indices.tolist(), strict=True)
    )
    result = PredictionResult(model, rows, bad, out)
    if result.out is not None:
        _write(result, result.out)
    _print(result, format)
    return result


def _write(result: PredictionResult, out: Path) -> None:
    from vggtransfer.cache import write_atomically
    from vggtransfer.report.json_output import json_text

    text = result.as_csv() if out.suffix.lower() == ".csv" else json_text(result.as_dict()) + "\n"
    try:
        # A file name that is no UTF-8 comes out byte by byte as it is.
        with write_atomically(out) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise OptionError(f"--out {out}: cannot write there: {error.strerror or error}") from error


def _print(result: PredictionResult, form: Literal["table", "csv", "json"]) -> None:
    match form:
        case "csv":
            print(result.as_csv(), end="")
        case "json":
            from vggtransfer.report.json_output import print_json

            print_json(result.as_dict())
        case "table":
            _print_table(result)
            if result.out is not None:
                print(f"wrote {result.out}")


def _print_table(result: PredictionResult) -> None:
    from vggtransfer.printable import printable
    from vggtransfer.report.console import plain_table, print_table

    more = len(result.rows[0].predictions) > 1
    table = plain_table("picture", "label", "probability", *(["then"] if more else []), numbers=("probability",))
    for row in result.rows:
        then = ", ".join(f"{printable(label)} {probability:.1%}" for label, probability in row.predictions[1:])
        first = row.predictions[0]
        cells = [printable(row.path), printable(first.label), f"{first.probability:.1%}"]
        table.add_row(*cells, *([then] if more else []))
    print_table(table)

"""`vggtransfer explain`: where in pictures a classifier finds what speaks for a class."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.classification.prediction import LabelProbability
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import OptionError, did_you_mean
from vggtransfer.option_values import checked_values

if TYPE_CHECKING:
    from vggtransfer.classification.model import VGGClassifier
    from vggtransfer.data.scan import BadPicture


@dataclass(frozen=True)
class PictureExplanation:
    """What was predicted for a picture, and which class its heat map is about.

    Attributes:
        path: The picture.
        predicted: The most probable class.
        explained: The class of the heat map: the predicted one, unless another was asked for.
        out: The PNG file written.
    """

    path: Path
    predicted: LabelProbability
    explained: LabelProbability
    out: Path


@dataclass(frozen=True)
class ExplanationResult:
    """What `explain` wrote.

    Attributes:
        model: The model, as given.
        layer: The layer that was looked at.
        rows: One per picture that can be read, in the order they were given.
        bad: The other pictures.
        out: The folder of the PNG files.
    """

    model: Path
    layer: str
    rows: tuple[PictureExplanation, ...]
    bad: tuple[BadPicture, ...]
    out: Path

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        read = [
            {
                "path": str(row.path),
                "status": "ok",
                "predicted": row.predicted._asdict(),
                "explained": row.explained._asdict(),
                "out": str(row.out),
            }
            for row in self.rows
        ]
        bad = [{"path": str(picture.path), "status": "bad", "reason": picture.reason} for picture in self.bad]
        return {"model": str(self.model), "layer": self.layer, "pictures": read + bad, "out": str(self.out)}

    def as_csv(self) -> str:
        """One line per picture that can be read: path, label, probability, explained, its probability, out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", "probability", "explained", "explained_probability", "out"])
        for row in self.rows:
            (label, probability), (explained, of_explained) = row.predicted, row.explained
            writer.writerow([row.path, label, f"{probability:.6f}", explained, f"{of_explained:.6f}", row.out])
        return text.getvalue()


def explain(
    paths: list[str],
    *,
    model: Path,
    layer: str | None = None,
    class_: str | None = None,
    alpha: float = 0.7,
    batch_size: int = 16,
    precision: Precision = "auto",
    device: str = "auto",
    workers: int | None = None,
    on_bad_image: Literal["skip", "stop"] = "skip",
    format: Literal["table", "csv", "json"] = "table",  # noqa: A002
    out: Path | None = None,
) -> ExplanationResult:
    """Draws heat maps of where in pictures a classifier finds what speaks for a class (Grad-CAM).

    For each picture a PNG file: the picture, and beside it the same with the heat map over the part that the network
    sees; what is cut off is dimmed. Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization".

    Args:
        paths: Pictures, folders (with everything below them), patterns such as `photos/**/*.jpg`, or `-` for a list
            of these on standard input, one a line.
        model: Run directory of `finetune`, or its `model.safetensors`.
        layer: Layer to look at, such as `conv4_3`, `relu5_1` or `pool5`; default: the last ReLU. Earlier ones tell
            places apart more finely, later ones classes.
        class_: Class to ask about; default: the predicted one, picture by picture.
        alpha: Opacity of the hottest places, 0 to 1.
        batch_size: Pictures per pass through the network.
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        workers: Processes that load pictures; default: chosen for the machine.
        on_bad_image: `skip` leaves unreadable pictures out and names them; `stop` ends with the first one.
        format: A table for people; CSV with one line per picture; or one JSON object, which lists unreadable pictures
            as well.
        out: Folder for the PNG files and `environment.json`; default: `runs/explain/N` with the next free N. The files
            are called `PICTURE_LAYER.png`, with a class of your own `PICTURE_LAYER_for_CLASS.png`.

    Returns:
        The predictions and the files written.

    Raises:
        VGGTransferError: An option, the model or a path cannot be used, or no picture at all can be read.
    """
    given = checked_values(explain, {name: value for name, value in locals().items() if name != "paths"})
    model, out, alpha = given["model"], given["out"], given["alpha"]
    if not 0 <= alpha <= 1:
        raise OptionError(f"alpha={alpha} is not possible: use 0 to 1")
    from vggtransfer.classification.explanation_pictures import write_explanations
    from vggtransfer.classification.inference import check_scoring_options, score_files
    from vggtransfer.classification.model import load_classifier
    from vggtransfer.encoder.precision import resolve_device, resolve_precision
    from vggtransfer.features.grad_cam import last_activation
    from vggtransfer.report.result_folder import check_result_folder, writing_results
    from vggtransfer.training.run_directory import (
        ENVIRONMENT_FILE,
        create_run_directory,
        read_environment,
        write_environment,
    )

    check_scoring_options(batch_size=batch_size, workers=workers, tta="none")
    chosen_device = resolve_device(device)
    resolve_precision(precision, chosen_device)  # refuses before thousands of pictures are read, not after

    classifier = load_classifier(model).to(chosen_device)
    asked = _label(classifier, class_, model)
    chosen_layer = classifier.encoder.architecture.layer(layer or last_activation(classifier.encoder)).name
    check_result_folder(out)
    folder = create_run_directory("explain", None) if out is None else out
    if (folder / ENVIRONMENT_FILE).is_file():
        read_environment(folder)  # refuses a file that is not ours before the work
    read, probabilities, bad = score_files(
        classifier,
        paths,
        on_bad_image=on_bad_image,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
        progress="predicting",
    )
    with writing_results(folder, asked=True):
        rows, gone = write_explanations(
            classifier,
            read,
            probabilities,
            folder,
            layer=chosen_layer,
            label=asked,
            alpha=alpha,
            batch_size=batch_size,
            precision=precision,
        )
        write_environment(folder, device=chosen_device, processes=1)
    result = ExplanationResult(model, chosen_layer, rows, bad + gone, folder)
    _print(result, format)
    return result


def _label(classifier: VGGClassifier, name: str | None, model: Path) -> int | None:
    classes = classifier.task.classes
    if name is None:
        return None
    if name in classes:
        return classes.index(name)
    some = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    raise OptionError(f"--class {name}: {model} has no such class{did_you_mean(name, classes)}; its classes: {some}")


def _print(result: ExplanationResult, form: Literal["table", "csv", "json"]) -> None:
    match form:
        case "csv":
            print(result.as_csv(), end="")
        case "json":
            from vggtransfer.report.json_output import print_json

            print_json(result.as_dict())
        case "table":
            _print_table(result)
            print(f"wrote {len(result.rows)} pictures of {result.layer} to {result.out}")


def _print_table(result: ExplanationResult) -> None:
    from vggtransfer.printable import printable
    from vggtransfer.report.console import plain_table, print_table

    another = any(row.explained != row.predicted for row in result.rows)
    headings = ["picture", "label", "probability", *(["explained", "its probability"] if another else []), "file"]
    table = plain_table(*headings, numbers=("probability", "its probability"))
    for row in result.rows:
        cells = [printable(row.path), printable(row.predicted.label), f"{row.predicted.probability:.1%}"]
        if another:
            cells += [printable(row.explained.label), f"{row.explained.probability:.1%}"]
        table.add_row(*cells, printable(row.out.relative_to(result.out)))
    print_table(table)

"""`vggtransfer evaluate`: how good a classifier is on labelled pictures."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.classification.views import TTA
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import DataError, OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.printable import printable

if TYPE_CHECKING:
    from vggtransfer.classification.metrics import Scores
    from vggtransfer.data.scan import BadPicture


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` measured.

    Attributes:
        model: The model, as given.
        data: The data folder, as given.
        split: The split, as given.
        folder: Where the pictures are from: the data folder, or the folder in it that holds the split.
        tta: Test-time augmentation.
        scores: All of them; `scores.top1_accuracy` is the usual one.
        trained_on: How many of the pictures scored are in the training set of the model; None if its run directory,
            and with it this knowledge, is not there.
        bad: Pictures that cannot be read and were left out.
        out: The folder that was written; None if `runs/evaluate` cannot be.
    """

    model: Path
    data: Path
    split: str
    folder: Path
    tta: str
    scores: Scores
    trained_on: int | None
    bad: tuple[BadPicture, ...]
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        return {
            "model": str(self.model),
            "data": str(self.data),
            "split": self.split,
            "folder": str(self.folder),
            "tta": self.tta,
            **asdict(self.scores),
            "trained_on": self.trained_on,
            "bad_images": [{"path": str(picture.path), "reason": picture.reason} for picture in self.bad],
            "out": None if self.out is None else str(self.out),
        }


def evaluate(
    data: Path,
    *,
    model: Path,
    split: Literal["auto", "train", "val", "test", "all"] = "auto",
    batch_size: int = 64,
    precision: Precision = "auto",
    device: str = "auto",
    workers: int | None = None,
    tta: TTA = "none",
    on_bad_image: Literal["skip", "stop"] = "skip",
    format: Literal["table", "json"] = "table",  # noqa: A002
    out: Path | None = None,
) -> EvaluationResult:
    """Measures a classifier on labelled pictures: accuracy, per-class scores, confusion and calibration.

    Pictures that the model was trained on are recognised by their content, from the record in its run directory. They
    are left out where that is the only way to an honest result (a folder that is not divided into train, val and
    test, with split `auto`), and counted in a warning elsewhere.

    Args:
        data: Folder with `train|val|test/CLASS/*`, or with `CLASS/*`. The classes must be those of the model.
        model: Run directory of `finetune`, or its `model.safetensors`.
        split: `auto` takes test, else val, else the pictures of a flat folder that the model was not trained on;
            `train` and `val`, in a folder without them, the model's own training or validation pictures among those
            there; `all` takes everything there is.
        batch_size: Pictures per pass through the network.
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        workers: Processes that load pictures; default: chosen for the machine.
        tta: Views whose probabilities are averaged: `none` is the centre crop alone, `flip` adds its mirror image,
            `five-crop` the four corners, `ten-crop` both.
        on_bad_image: `skip` leaves unreadable pictures out and names them; `stop` ends with the first one.
        format: A table for people, or one JSON object.
        out: Folder for `report.html`, `evaluation.json`, `confusion.png`, `bad_images.csv` and `environment.json`;
            default: `runs/evaluate/N` with the next free N. A default folder that cannot be written is a warning.

    Returns:
        What was measured, and the folder that was written.

    Raises:
        VGGTransferError: An option, the model or the data cannot be used; says which and what to do.
    """
    given = checked_values(evaluate, locals())
    data, model, out = given["data"], given["model"].expanduser(), given["out"]
    from vggtransfer.classification.inference import check_scoring_options, score_pictures
    from vggtransfer.classification.metrics import compute_metrics
    from vggtransfer.classification.model import load_classifier
    from vggtransfer.classification.report import write_evaluation_report
    from vggtransfer.classification.training_record import choose_samples, find_candidates, read_training_record
    from vggtransfer.data.scan import check_pictures
    from vggtransfer.encoder.precision import resolve_device, resolve_precision
    from vggtransfer.report.result_folder import check_result_folder, writing_results
    from vggtransfer.training.run_directory import write_environment

    check_scoring_options(batch_size=batch_size, workers=workers, tta=tta)
    chosen_device = resolve_device(device)
    resolve_precision(precision, chosen_device)  # refuses before thousands of pictures are read, not after
    check_result_folder(out)

    classifier = load_classifier(model).to(chosen_device)
    record = read_training_record(model)
    candidates = find_candidates(data, split, record)
    _check_classes(data, candidates.classes, classifier.task.classes)
    check = check_pictures(candidates.samples, on_bad_image=on_bad_image, progress=True)
    _report_bad(check.bad)
    if not check.good:
        raise DataError(f"{data}: none of the {len(check.bad)} pictures can be read, the first: {check.bad[0].reason}")
    samples = choose_samples(candidates, check.good, check.hashes, record)
    trained_on = None if record is None else sum(check.hashes[sample.path] in record.train for sample in samples)
    _report_choice(samples, good=len(check.good), trained_on=trained_on)
    if record is None:
        print("warning: which pictures the model was trained on is not known; they may be among these", file=sys.stderr)

    probabilities, labels = score_pictures(
        classifier,
        samples,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
        tta=tta,
        progress="evaluating",
    )
    scores = compute_metrics(probabilities, labels, classifier.task.classes)
    folder = _new_folder() if out is None else out
    result = EvaluationResult(model, data, split, candidates.folder, tta, scores, trained_on, check.bad, folder)
    unprinted: OSError | None = None
    try:
        _print(result, format)  # before anything is written: a full disk must not cost the numbers
    except OSError as error:
        unprinted = error  # nor a closed pipe the files
    if folder is None:
        return result
    with writing_results(folder, asked=out is not None):
        _write(result, folder)
        write_environment(folder, device=chosen_device, processes=1)
        write_evaluation_report(
            folder,
            result=result,
            model=classifier,
            samples=samples,
            probabilities=probabilities,
            precision=precision,
            command=_command(given),
        )
    if unprinted is not None:
        raise unprinted
    if format == "table":
        from vggtransfer.classification.evaluation_table import print_files

        print_files(folder)
    return result


def _check_classes(data: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    if tuple(found) == tuple(expected):
        return
    only_data, only_model = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    difference = "; ".join(
        f"only in {where}: {_shortened(names)}"
        for where, names in (("the data", only_data), ("the model", only_model))
        if names
    )
    raise DataError(
        f"{data} has other classes than the model: {len(found)} in the data ({_shortened(found)}), "
        f"{len(expected)} in the model ({_shortened(expected)}); {difference}"
    )


def _shortened(names: Sequence[str], most: int = 20) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _report_bad(bad: Sequence[BadPicture]) -> None:
    if not bad:
        return
    print(f"warning: {len(bad)} unreadable pictures left out:", file=sys.stderr)
    for picture in bad:
        print(f"  {printable(picture.path)}: {printable(picture.reason)}", file=sys.stderr)


def _report_choice(samples: Sequence[object], *, good: int, trained_on: int | None) -> None:
    if len(samples) < good:
        print(f"evaluating {len(samples)} of {good} pictures, chosen by the record of the model's run", file=sys.stderr)
    if trained_on:
        print(
            f"warning: {trained_on} of {len(samples)} pictures were in the training set of this model; "
            "its scores on them say nothing about new pictures",
            file=sys.stderr,
        )


def _new_folder() -> Path | None:
    """Where results are kept if nobody said where; not being able to keep them is no reason to fail."""
    from vggtransfer.training.run_directory import create_run_directory

    try:
        return create_run_directory("evaluate", None)
    except OptionError as error:
        print(f"warning: nothing is written: {error}", file=sys.stderr)
        return None


def _print(result: EvaluationResult, form: Literal["table", "json"]) -> None:
    if form == "json":
        from vggtransfer.report.json_output import print_json

        print_json(result.as_dict())
    else:
        from vggtransfer.classification.evaluation_table import print_tables

        print_tables(result)
    sys.stdout.flush()


def _write(result: EvaluationResult, out: Path) -> None:
    from vggtransfer.cache import write_atomically
    from vggtransfer.classification.figures import draw_confusion
    from vggtransfer.data.scan import write_bad_pictures
    from vggtransfer.report.json_output import json_text

    with write_atomically(out / "evaluation.json") as temporary:
        temporary.write_text(json_text(result.as_dict()) + "\n", encoding="utf-8")
    draw_confusion(result.scores.confusion, [row.label for row in result.scores.classes], out / "confusion.png")
    write_bad_pictures(out / "bad_images.csv", result.bad)


def _command(given: Mapping[str, object]) -> list[str]:
    """The command that measures the same: all options that differ from their defaults."""
    words = ["vggtransfer", "evaluate"]
    for name, parameter in inspect.signature(evaluate).parameters.items():
        if given[name] != parameter.default and name != "format":
            words += [f"--{name.replace('_', '-')}", str(given[name])]
    return words

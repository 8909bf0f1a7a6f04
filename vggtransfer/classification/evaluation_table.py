"""The tables of `vggtransfer evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggtransfer.classification.metrics import Scores, most_confused
from vggtransfer.classification.report import REPORT_FILE
from vggtransfer.printable import printable
from vggtransfer.report.console import plain_table, print_table

if TYPE_CHECKING:
    from vggtransfer.classification.evaluation import EvaluationResult

_FILES = ("evaluation.json", "confusion.png", "bad_images.csv", "environment.json")
_MOST_CLASSES = 40
_WORST_CLASSES = 20
_CONFUSIONS = 5


def print_tables(result: EvaluationResult) -> None:
    """Prints overall scores, scores by class and the most frequent confusions to standard output."""
    scores = result.scores
    views = "" if result.tta == "none" else f", {result.tta} test-time augmentation"
    print(f"{printable(result.model)} on {scores.pictures:,} pictures of {printable(result.folder)}{views}")

    overall = plain_table("overall", "score", numbers=("score",))
    overall.add_row("top-1 accuracy", f"{scores.top1_accuracy:.2%}")
    if scores.top5_accuracy is not None:
        overall.add_row("top-5 accuracy", f"{scores.top5_accuracy:.2%}")
    overall.add_row("macro precision", f"{scores.macro_precision:.2%}")
    overall.add_row("macro recall (balanced accuracy)", f"{scores.macro_recall:.2%}")
    overall.add_row("macro F1", f"{scores.macro_f1:.2%}")
    overall.add_row("expected calibration error", f"{scores.calibration_error:.2%}")
    overall.add_row("negative log-likelihood", f"{scores.negative_log_likelihood:.4f}")
    print_table(overall)
    _print_classes(scores)
    _print_confusions(scores)
    if result.bad:
        print(f"left out: {len(result.bad)} unreadable pictures")


def print_files(folder: Path) -> None:
    """Prints which files an evaluation left in its folder."""
    if written := [name for name in _FILES if (folder / name).is_file()]:
        print(f"wrote {printable(folder)}: {', '.join(written)}")
    if (folder / REPORT_FILE).is_file():
        print(f"report: {printable(folder / REPORT_FILE)}")


def _print_classes(scores: Scores) -> None:
    rows: Sequence[object] = scores.classes
    shown = scores.classes
    if len(rows) > _MOST_CLASSES:
        present = [row for row in scores.classes if row.support]
        shown = tuple(sorted(present, key=lambda row: row.f1)[:_WORST_CLASSES])
        print(f"the {len(shown)} classes with the lowest F1 of {len(rows)} (--format json shows all of them)")
    columns = ("precision", "recall", "F1", "pictures")
    table = plain_table("class", *columns, numbers=columns)
    for row in shown:
        table.add_row(
            printable(row.label), f"{row.precision:.1%}", f"{row.recall:.1%}", f"{row.f1:.1%}", f"{row.support:,}"
        )
    print_table(table)


def _print_confusions(scores: Scores) -> None:
    names = [row.label for row in scores.classes]
    errors = most_confused(scores.confusion)
    if not errors:
        return
    print("most frequent confusions")
    table = plain_table("pictures", "of", "taken for", numbers=("pictures",))
    for count, true, predicted in errors[:_CONFUSIONS]:
        table.add_row(f"{count:,}", printable(names[true]), printable(names[predicted]))
    print_table(table)

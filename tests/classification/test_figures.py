from __future__ import annotations

import csv
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vggtransfer.classification import figures
from vggtransfer.classification.figures import draw_confusion, draw_curves

COLUMNS = "epoch,step,unfreeze,learning_rate,train_loss,train_accuracy,val_loss,val_accuracy,seconds,images_per_second"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, to look into."""
    saved: list[Figure] = []
    save = figures._save

    def keep(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    return saved


def is_png(path: Path) -> bool:
    with Image.open(path) as picture:
        picture.load()
        return picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5


def epochs(val_accuracies: list[float | str], unfreeze: list[str]) -> list[dict[str, object]]:
    return [
        {
            "epoch": number,
            "unfreeze": policy,
            "train_loss": 2 / number,
            "val_loss": 2.2 / number,
            "train_accuracy": 0.5,
            "val_accuracy": accuracy,
        }
        for number, (accuracy, policy) in enumerate(zip(val_accuracies, unfreeze, strict=True), start=1)
    ]


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in [*axes.texts, *axes.get_xticklabels()]}


def test_curves_from_a_csv_file(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = ["1,10,none,0.1,2.3,0.1,2.2,0.2,1.5,20", "2,20,block5,0.1,1.3,0.5,1.4,0.6,1.5,20"]
    (tmp_path / "metrics.csv").write_text("\n".join([COLUMNS, *rows]) + "\n", encoding="utf-8")
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        as_rows = list(csv.DictReader(file))
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    draw_curves(as_rows, tmp_path / "same.png")
    assert is_png(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in drawn[0].axes[0].lines}
    assert lines["training"] == [2.3, 1.3]
    assert lines["validation"] == [2.2, 1.4]


def test_the_first_best_epoch_is_marked(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves(epochs([0.2, 0.7, "nan", 0.7, 0.5], ["block5"] * 5), tmp_path / "curves.png")
    loss, accuracy = drawn[0].axes
    (ring,) = [line for line in accuracy.lines if line.get_label() == "best: epoch 2, 70.0%"]
    assert (ring.get_xdata(), ring.get_ydata()) == ([2], [0.7])
    (ring,) = [line for line in loss.lines if line.get_label() == "best: epoch 2"]
    assert ring.get_ydata() == [1.1]


def test_stages_of_unfreezing_are_marked(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves(epochs([0.2] * 6, ["none", "none", "block5", "block5", "all", "all"]), tmp_path / "curves.png")
    for axes in drawn[0].axes:
        dashed = [np.asarray(line.get_xdata())[0] for line in axes.lines if line.get_linestyle() == "--"]
        assert dashed == [2.5, 4.5]
    assert {"none", "block5", "all"} <= texts(drawn[0])
    draw_curves(epochs([0.2] * 6, ["block5"] * 6), tmp_path / "curves.png")
    assert "block5" not in texts(drawn[1])


@pytest.mark.parametrize("count", [0, 1, 100])
def test_any_number_of_epochs(count: int, tmp_path: Path) -> None:
    draw_curves(epochs([0.5] * count, ["all"] * count), tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")


def test_missing_values(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = epochs(["", "", ""], ["none", "$x_1$", "all"])
    for row in rows:
        del row["val_loss"]
    draw_curves(rows, tmp_path / "curves.png")
    assert [line.get_label() for line in drawn[0].axes[1].lines if line.get_linestyle() == "-"] == ["training"]


@pytest.mark.parametrize("count", [2, 20, 21, 200, 201])
def test_confusion_of_any_size(count: int, tmp_path: Path, drawn: list[Figure]) -> None:
    confusion = (np.eye(count, dtype=int) * 37 + np.eye(count, k=1, dtype=int) * 5).tolist()
    names = [f"class number {index}" for index in range(count)]
    draw_confusion(confusion, names, tmp_path / "confusion.png")
    assert is_png(tmp_path / "confusion.png")
    axes, _ = drawn[0].axes
    image = np.asarray(axes.images[0].get_array())
    assert image.shape == (count, count)
    assert image[0, :2].tolist() == pytest.approx([37 / 42, 5 / 42])
    assert image[-1, -1] == 1
    assert ("37" in texts(drawn[0])) == (count <= 20)
    assert ("class number 1" in texts(drawn[0])) == (count <= 200)
    assert f"{37 * count:,} of {42 * count - 5:,} pictures right" in axes.get_title()


def test_odd_names_are_drawn_as_they_stand(tmp_path: Path, drawn: list[Figure]) -> None:
    names = ["cost_$5_and_$6", "日本語", "two\nlines", "Taraxacum sect. Ruderalia (common dandelion)", r"\frac{$"]
    draw_confusion([[1] * 5] * 5, names, tmp_path / "confusion.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert labels == [names[0], names[1], "two�lines", "Taraxacum sect…on dandelion)", names[4]]
    assert not any(label.get_parse_math() for label in drawn[0].axes[0].get_yticklabels())


def test_a_class_without_pictures(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_confusion([[3, 0], [0, 0]], ["there", "not there"], tmp_path / "confusion.png")
    assert np.asarray(drawn[0].axes[0].images[0].get_array()).tolist() == [[1, 0], [0, 0]]


def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    backend = matplotlib.get_backend()
    draw_confusion([[1, 0], [0, 1]], ["a", "b"], tmp_path / "new" / "confusion.png")
    assert matplotlib.get_backend() == backend
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["confusion.png"]

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vggtransfer.classification.inference import score_pictures
from vggtransfer.classification.model import Task, VGGClassifier, save_classifier
from vggtransfer.classification.prediction import predict
from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import Sample
from vggtransfer.errors import DataError, OptionError

Writer = Callable[..., list[Path]]


@pytest.fixture
def pictures(write_colours: Writer, tmp_path: Path) -> list[Path]:
    """blue/0.png, green/0.png, red/0.png, white/0.png."""
    return write_colours(tmp_path / "new", count=1)


def test_known_answer(colour_run: Path, colour_classifier: VGGClassifier, pictures: list[Path]) -> None:
    result = predict([str(path) for path in reversed(pictures)], model=colour_run, precision="fp32")
    assert [row.path for row in result.rows] == pictures[::-1]
    assert [row.label for row in result.rows] == ["white", "red", "green", "blue"]
    assert result.labels == {path: path.parent.name for path in pictures}
    expected, _ = score_pictures(colour_classifier, [Sample(path, 0) for path in pictures[::-1]], precision="fp32")
    for row, probabilities in zip(result.rows, expected.tolist(), strict=True):
        assert [value for _, value in row.predictions] == pytest.approx(sorted(probabilities, reverse=True))
        for label, value in row.predictions:
            assert value == pytest.approx(probabilities[["blue", "green", "red", "white"].index(label)])


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1), (3, 3), (50, 4)])
def test_top_k(top_k: int, expected: int, colour_run: Path, pictures: list[Path]) -> None:
    result = predict([str(pictures[0])], model=colour_run, top_k=top_k)
    assert len(result.rows[0].predictions) == expected


def test_json_lists_good_and_bad_pictures_and_nothing_else_is_printed(
    colour_run: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new" / "kaputt ☂.jpg").write_bytes(b"text")
    result = predict([str(tmp_path / "new")], model=colour_run, format="json", top_k=2)
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert content == json.loads(json.dumps(result.as_dict()))
    assert [(Path(row["path"]).name, row["status"]) for row in content["pictures"]] == [
        *[("0.png", "ok")] * 4,
        ("kaputt ☂.jpg", "bad"),
    ]
    assert content["pictures"][2]["predictions"][0]["label"] == "red"
    assert content["pictures"][4]["reason"] == result.bad[0].reason
    assert "kaputt ☂.jpg" in captured.err


def test_csv_has_one_line_per_picture(
    colour_run: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / 'with "quotes", and commas.png'
    pictures[1].rename(odd)
    result = predict([str(odd), str(pictures[0])], model=colour_run, format="csv", top_k=2)
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["path", "label", "probability", "label_2", "probability_2"]
    assert [row[:2] for row in rows[1:]] == [[str(odd), "green"], [str(pictures[0]), "blue"]]
    assert float(rows[1][2]) == pytest.approx(result.rows[0].predictions[0].probability, abs=1e-6)


def test_table(colour_run: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    predict([str(path) for path in pictures], model=colour_run, top_k=2)
    output = capsys.readouterr().out
    for path in pictures:
        (line,) = [line for line in output.splitlines() if str(path) in line]
        assert line.split()[1] == path.parent.name


def test_class_and_file_names_are_taken_as_they_stand(
    colour_classifier: VGGClassifier, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("[red]blau[/red]", ":smile: grün", "rot\nzweite Zeile", "\x1b[31mweiß")
    model = VGGClassifier(colour_classifier.encoder, Task(names, 32, 1.0, "linear", 0.0)).eval()
    model.head.load_state_dict(colour_classifier.head.state_dict())
    save_classifier(model, tmp_path / "model.safetensors")
    odd = pictures[0].rename(tmp_path / "[bold]x.png")
    paths = [str(odd), *map(str, pictures[1:])]
    predict(paths, model=tmp_path / "model.safetensors", top_k=1)
    output = capsys.readouterr().out
    assert "[bold]x.png" in output
    assert "[red]blau[/red]" in output
    assert ":smile: grün" in output
    assert r"rot\nzweite Zeile" in output
    assert r"\x1b[31mweiß" in output
    assert "\x1b" not in output
    predict(paths, model=tmp_path / "model.safetensors", top_k=1, format="json")
    content = json.loads(capsys.readouterr().out)
    assert [row["predictions"][0]["label"] for row in content["pictures"]] == list(names)


def test_a_file_name_that_is_no_utf8(colour_run: Path, pictures: list[Path], tmp_path: Path) -> None:
    raw = bytes(tmp_path / "new") + b"/caf\xe9.png"
    try:
        odd = pictures[0].rename(Path(raw.decode("utf-8", "surrogateescape")))
    except OSError:
        pytest.skip("this file system takes no such names")
    code = (
        "import sys, pathlib\n"
        "from vggtransfer.classification.prediction import predict\n"
        "for form, out in (('json', sys.argv[3]), ('table', sys.argv[4])):\n"
        "    predict([sys.argv[1]], model=pathlib.Path(sys.argv[2]), format=form, out=pathlib.Path(out), workers=0)\n"
    )
    json_file, csv_file = tmp_path / "p.json", tmp_path / "p.csv"
    run = subprocess.run(
        [sys.executable, "-c", code, bytes(odd), str(colour_run), str(json_file), str(csv_file)],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    printed, table = run.stdout.split(b"\n}\n", 1)
    assert json.loads(printed + b"}")["pictures"][0]["path"] == str(odd)
    assert rb"caf\udce9.png" in table
    assert json.loads(json_file.read_text(encoding="utf-8"))["pictures"][0]["path"] == str(odd)
    assert csv_file.read_bytes().splitlines()[1].startswith(raw + b",")


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.JSON"])
def test_out_is_written_as_well(
    name: str, colour_run: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new folder" / name
    result = predict([str(tmp_path / "new")], model=colour_run, out=out)
    assert result.out == out
    assert f"wrote {out}" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    if name.endswith("csv"):
        assert text == result.as_csv()
    else:
        assert json.loads(text) == json.loads(json.dumps(result.as_dict()))


def test_folders_patterns_and_standard_input(
    colour_run: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(predict(["new"], model=colour_run).rows) == 4
    assert [row.label for row in predict(["new/*e*/*.png"], model=colour_run).rows] == ["blue", "green", "red", "white"]
    monkeypatch.setattr("sys.stdin", io.StringIO("new/red/0.png\nnew/blue\n"))
    assert [row.label for row in predict(["-"], model=colour_run).rows] == ["red", "blue"]
    assert predict("new/red/0.png", model=colour_run).labels == {Path("new/red/0.png"): "red"}  # type: ignore[arg-type]


def test_bad_pictures(
    colour_run: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in pictures[1:]:
        path.write_bytes(path.read_bytes()[:100])
    result = predict([str(path) for path in pictures], model=colour_run)
    assert result.labels == {pictures[0]: "blue"}
    assert [picture.path for picture in result.bad] == pictures[1:]
    assert capsys.readouterr().err.count("warning: left out ") == 3
    with pytest.raises(DataError, match=str(pictures[1])):
        predict([str(path) for path in pictures], model=colour_run, on_bad_image="stop")
    with pytest.raises(DataError, match="none of 3 pictures can be read"):
        predict([str(path) for path in pictures[1:]], model=colour_run)


def test_each_picture_is_decoded_once(colour_run: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from vggtransfer.data import dataset

    decoded: list[Path] = []

    def count(path: Path, *, min_side: int | None = None) -> object:
        decoded.append(path)
        return decode_image(path, min_side=min_side)

    monkeypatch.setattr(dataset, "decode_image", count)
    monkeypatch.setattr("vggtransfer.data.scan.decode_image", count)
    predict([str(path) for path in pictures], model=colour_run, batch_size=2, workers=0)
    assert decoded == pictures


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pictures_anywhere_leave_the_others_in_order(
    workers: int, colour_run: Path, write_colours: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_colours(tmp_path / "many")
    # Batches of 3: a bad one in the middle, a batch of nothing else, a bad one at the end.
    bad = [paths[1], *paths[3:6], paths[11]]
    for path in bad:
        path.write_bytes(b"no picture")
    (paths[8]).unlink()
    result = predict(
        [*map(str, paths[:8]), *map(str, paths[9:])], model=colour_run, batch_size=3, workers=workers, top_k=1
    )
    read = [path for path in paths if path not in bad and path != paths[8]]
    assert [row.path for row in result.rows] == read
    assert [row.label for row in result.rows] == [path.parent.name for path in read]
    assert [picture.path for picture in result.bad] == bad
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"warning: left out {picture.path}: {picture.reason}" for picture in result.bad]
    with pytest.raises(DataError) as caught:
        predict([str(paths[0]), *map(str, bad)], model=colour_run, workers=workers, on_bad_image="stop")
    assert multiprocessing.active_children() == []  # although the traceback is still there
    assert str(caught.value) == (
        f"{bad[0]}: {result.bad[0].reason}; replace or remove it, or leave such out with --on-bad-image skip"
    )


def test_texts_do_for_paths(colour_run: Path, pictures: list[Path], tmp_path: Path) -> None:
    result = predict([str(pictures[0])], model=str(colour_run), out=str(tmp_path / "p.csv"))  # type: ignore[arg-type]
    assert result.model == colour_run
    assert result.out == tmp_path / "p.csv"
    assert result.out.is_file()


def test_flip_is_averaged(colour_run: Path, pictures: list[Path]) -> None:
    paths = [str(path) for path in pictures]
    plain = predict(paths, model=colour_run, precision="fp32").rows
    flipped = predict(paths, model=colour_run, precision="fp32", tta="flip").rows
    assert [row.label for row in plain] == [row.label for row in flipped]
    assert plain != flipped


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"format": "yaml"}, "format='yaml'"),
        ({"out": Path("predictions.txt")}, r"must end in \.csv or \.json"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"device": "cuda:99"}, "torch finds"),
    ],
)
def test_impossible_options(options: dict[str, object], words: str, colour_run: Path) -> None:
    with pytest.raises(OptionError, match=words):
        predict(["missing.png"], model=colour_run, **options)  # type: ignore[arg-type]


def test_missing_pictures(colour_run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.png"):
        predict([str(tmp_path / "missing.png")], model=colour_run)
    with pytest.raises(DataError):
        predict([], model=colour_run)


def test_results_are_plain_values(colour_run: Path, pictures: list[Path]) -> None:
    label, probability = predict([str(pictures[0])], model=colour_run).rows[0].predictions[0]
    assert type(label) is str
    assert type(probability) is float
    assert not isinstance(probability, torch.Tensor)


def test_commands_can_be_imported_without_torch() -> None:
    code = (
        "import sys\n"
        "import vggtransfer.classification.evaluation, vggtransfer.classification.prediction\n"
        "slow = {'torch', 'torchvision', 'torchmetrics', 'numpy', 'PIL', 'rich', 'matplotlib', 'cv2'}\n"
        "sys.exit(', '.join(slow & set(sys.modules)) or 0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert run.returncode == 0, run.stderr

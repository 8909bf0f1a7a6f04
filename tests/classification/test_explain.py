from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vggtransfer.classification.explanation import explain
from vggtransfer.classification.explanation_pictures import explanation_picture, seen_square
from vggtransfer.classification.model import Task, VGGClassifier, save_classifier
from vggtransfer.classification.prediction import predict
from vggtransfer.cli import main
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import DataError, OptionError, WeightsError

Writer = Callable[..., list[Path]]


@pytest.fixture
def pictures(write_colours: Writer, tmp_path: Path) -> list[Path]:
    """blue/0.png, green/0.png, red/0.png, white/0.png."""
    return write_colours(tmp_path / "new", count=1)


def is_png(path: Path) -> bool:
    with Image.open(path) as picture:
        picture.load()
        return picture.format == "PNG"


def test_one_picture_each_and_the_answers_of_predict(colour_run: Path, pictures: list[Path], tmp_path: Path) -> None:
    result = explain([str(path) for path in reversed(pictures)], model=colour_run, out=tmp_path / "out")
    expected = predict([str(path) for path in reversed(pictures)], model=colour_run, format="csv")
    assert [row.path for row in result.rows] == pictures[::-1]
    assert [row.predicted for row in result.rows] == [row.predictions[0] for row in expected.rows]
    assert all(row.explained == row.predicted for row in result.rows)
    assert result.layer == "relu5_3"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0_relu5_3.png",
        "0_relu5_3_2.png",
        "0_relu5_3_3.png",
        "0_relu5_3_4.png",
        "environment.json",
    ]
    (start,) = json.loads((tmp_path / "out" / "environment.json").read_text(encoding="utf-8"))
    assert torch.__version__.startswith(start["packages"]["torch"])
    assert all(is_png(row.out) for row in result.rows)


def test_a_class_and_a_layer_of_ones_own(colour_run: Path, pictures: list[Path], tmp_path: Path) -> None:
    result = explain([str(pictures[0])], model=colour_run, class_="red", layer="conv4_3", out=tmp_path / "out")
    (row,) = result.rows
    assert (row.predicted.label, row.explained.label) == ("blue", "red")
    assert row.explained.probability < row.predicted.probability
    assert row.out == tmp_path / "out" / "0_conv4_3_for_red.png"
    plain = explain([str(pictures[0])], model=colour_run, layer="conv4_3", out=tmp_path / "plain")
    assert plain.rows[0].out.read_bytes() != row.out.read_bytes()


def test_alpha(colour_run: Path, pictures: list[Path], tmp_path: Path) -> None:
    drawn = [
        np.asarray(Image.open(explain([str(pictures[0])], model=colour_run, alpha=a, out=tmp_path / "o").rows[0].out))
        for a in (0.0, 0.5, 1.0)
    ]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    right_half = drawn[0][70:-20, -200:-50].astype(int)
    assert np.ptp(right_half, axis=2).max() == 0  # no colour at all


@pytest.fixture(scope="module")
def spot_model() -> VGGClassifier:
    """A network that only passes colours on, with the classes `red` and `blue`; it sees the middle 7/8 of a picture."""
    encoder = VGGEncoder("vgg11", weights=None, layers=["pool5"], unfreeze="none")
    for module in encoder.trunk.values():
        if isinstance(module, nn.Conv2d):
            module.weight.data.zero_()
            for channel in range(3):
                module.weight.data[channel, channel, 1, 1] = 1.0
    model = VGGClassifier(encoder, Task(("red", "blue"), 112, 0.875, "linear", 0.0)).eval()
    linear = model.head.get_submodule("linear")
    assert isinstance(linear, nn.Linear)
    linear.weight.data.zero_()
    linear.weight.data[0, 0] = linear.weight.data[1, 2] = 1.0
    return model


def test_the_map_lies_over_what_it_is_about(spot_model: VGGClassifier, tmp_path: Path) -> None:
    save_classifier(spot_model, tmp_path / "model.safetensors")
    pixels = np.zeros((256, 400, 3), dtype=np.uint8)
    pixels[160:224, 220:284, 0] = 255  # a red patch in the lower right of the middle
    Image.fromarray(pixels).save(tmp_path / "spot.png")
    result = explain(
        [str(tmp_path / "spot.png")], model=tmp_path / "model.safetensors", out=tmp_path / "out", layer="relu3_2"
    )
    with Image.open(result.rows[0].out) as picture:
        drawn = np.asarray(picture).astype(int)
    # Two pictures of 400 x 256 side by side; the second one begins at the column 16 + 400 + 12.
    assert drawn.shape[1] == 16 + 400 + 12 + 400 + 16
    second = drawn[-16 - 256 : -16, 428:828]
    colourful = np.ptp(second, axis=2) > 60
    rows, columns = np.nonzero(colourful)
    assert 150 <= rows.min() < rows.max() <= 234
    assert 210 <= columns.min() < columns.max() <= 294
    # What the network does not see is lighter than the black of the rest.
    top, left, side = seen_square(256, 400, spot_model.task)
    assert (top, left, side) == (16, 88, 224)
    assert second[:top].min() > 60
    assert second[:, :left].min() > 60
    assert second[top + 3 : 150, left + 3 : left + side - 3].max() < 30


@pytest.mark.parametrize(("height", "width"), [(100, 300), (331, 200), (64, 64)])
@pytest.mark.parametrize(("size", "fraction"), [(224, 0.875), (32, 1.0), (65, 0.8)])
def test_the_square_is_the_one_the_network_sees(height: int, width: int, size: int, fraction: float) -> None:
    top, left, side = seen_square(height, width, Task(("a", "b"), size, fraction, "linear", 0.0))
    ramps = np.stack(np.broadcast_arrays(np.arange(height)[:, None], np.arange(width), 0), axis=2)
    picture = np.round(ramps / ramps.max() * 255).astype(np.uint8)
    seen = evaluation_transform(size, crop_fraction=fraction)(picture, key=0)
    for axis, first in ((0, top), (1, left)):
        inside = picture[top : top + side, left : left + side, axis].astype(int)
        assert abs(int(seen[..., axis].min()) - inside.min()) <= 3, (axis, first)
        assert abs(int(seen[..., axis].max()) - inside.max()) <= 3, (axis, first)


def test_a_tiny_and_a_long_picture_and_a_long_name(colour_classifier: VGGClassifier, tmp_path: Path) -> None:
    from vggtransfer.classification.explanation import PictureExplanation
    from vggtransfer.classification.prediction import LabelProbability

    answer = LabelProbability("a\nname " * 40, 0.5)
    row = PictureExplanation(Path("x"), answer, LabelProbability("日本\udce9", 0.1), Path("y"))
    for shape in ((3, 5, 3), (20, 900, 3), (900, 10, 3)):
        photograph = np.full(shape, 90, dtype=np.uint8)
        heat = np.ones((2, 2), dtype=np.float32)
        drawn = explanation_picture(photograph, heat, row, task=colour_classifier.task, layer="relu5_3", alpha=0.7)
        assert drawn.width <= 2 * 640 + 60
        assert drawn.height <= 640 + 100


class TestPathsAndBadPictures:
    def test_as_in_predict(
        self, colour_run: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "new" / "kaputt ☂.jpg").write_bytes(b"text")
        arguments = [str(tmp_path / "new" / "*" / "0.*"), str(tmp_path / "new")]
        result = explain(arguments, model=colour_run, out=tmp_path / "out", format="json")
        captured = capsys.readouterr()
        content = json.loads(captured.out)
        assert content == json.loads(json.dumps(result.as_dict()))
        assert [row["status"] for row in content["pictures"]] == ["ok"] * 4 + ["bad"]
        assert Path(content["pictures"][0]["out"]).is_file()
        assert content["pictures"][0]["predicted"]["label"] == "blue"
        assert content["layer"] == "relu5_3"
        assert "kaputt ☂.jpg" in captured.err
        assert [path.path.name for path in result.bad] == ["kaputt ☂.jpg"]
        with pytest.raises(DataError, match="kaputt"):
            explain([str(tmp_path / "new")], model=colour_run, out=tmp_path / "two", on_bad_image="stop")

    def test_standard_input(
        self, colour_run: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(str, pictures[:2]))))
        assert len(explain(["-"], model=colour_run, out=tmp_path / "out").rows) == 2

    def test_none_can_be_read(self, colour_run: Path, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"text")
        with pytest.raises(DataError, match="none of 1 pictures can be read"):
            explain([str(tmp_path / "a.jpg")], model=colour_run, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_one_vanishes_between_predicting_and_drawing(
        self,
        colour_run: Path,
        pictures: list[Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        from vggtransfer.classification import inference

        score = inference.score_files

        def score_and_lose(*a: object, **k: object) -> object:
            result = score(*a, **k)  # type: ignore[arg-type]
            pictures[1].unlink()
            return result

        monkeypatch.setattr(inference, "score_files", score_and_lose)
        result = explain([str(path) for path in pictures], model=colour_run, out=tmp_path / "out")
        assert [row.path for row in result.rows] == [pictures[0], *pictures[2:]]
        assert [picture.path for picture in result.bad] == [pictures[1]]
        assert f"left out {pictures[1]}" in capsys.readouterr().err

    def test_no_picture_is_overwritten(self, colour_run: Path, write_colours: Writer, tmp_path: Path) -> None:
        (first, *_) = write_colours(tmp_path, count=1)
        picture, same = tmp_path / "a.png", tmp_path / "a_relu5_3.png"
        for path in (picture, same):
            path.write_bytes(first.read_bytes())
        before = same.read_bytes()
        result = explain([str(picture), str(same)], model=colour_run, out=tmp_path)
        assert same.read_bytes() == before
        assert [row.out.name for row in result.rows] == ["a_relu5_3_2.png", "a_relu5_3_relu5_3.png"]


class TestFileNames:
    @pytest.mark.parametrize("stem", ["x" * 251, "ü" * 125, "日本" * 41, "a" + "🌷" * 62])
    def test_no_longer_than_a_file_system_takes(
        self, stem: str, colour_run: Path, pictures: list[Path], tmp_path: Path
    ) -> None:
        picture = pictures[0].rename(pictures[0].with_name(f"{stem}.png"))
        for name in (None, "red"):
            (row,) = explain([str(picture)], model=colour_run, class_=name, out=tmp_path / "out").rows
            assert is_png(row.out)
            cut, layer, end = row.out.name.partition("_relu5_3")
            assert (layer, end) == ("_relu5_3", "_for_red.png" if name else ".png")
            assert stem.startswith(cut)
            assert 255 - 4 < len(row.out.name.encode()) <= 255

    def test_long_names_that_begin_alike(self, colour_run: Path, pictures: list[Path], tmp_path: Path) -> None:
        named = [pictures[number].rename(tmp_path / ("ü" * 124 + f"{number}.png")) for number in range(3)]
        rows = explain([str(path) for path in named], model=colour_run, out=tmp_path / "out").rows
        assert len({row.out for row in rows}) == 3
        assert all(is_png(row.out) for row in rows)

    def test_each_class_has_files_of_its_own(
        self, colour_classifier: VGGClassifier, pictures: list[Path], tmp_path: Path
    ) -> None:
        names = ("a/b", "a:b", "ü" * 90 + "\n", "plain 日本")
        model = copy.deepcopy(colour_classifier)
        model.task = replace(model.task, classes=names)
        save_classifier(model, tmp_path / "model.safetensors")
        out = tmp_path / "out"
        options = {"model": tmp_path / "model.safetensors", "out": out}
        files = [explain(list(map(str, pictures)), class_=name, **options).rows[1].out.name for name in names]
        assert files == [
            "0_relu5_3_2_for_a-b-0.png",
            "0_relu5_3_2_for_a-b-1.png",
            "0_relu5_3_2_for_" + "ü" * 40 + "-2.png",
            "0_relu5_3_2_for_plain 日本.png",
        ]
        explain(list(map(str, pictures)), **options)
        assert len(list(out.glob("*.png"))) == len(pictures) * (len(names) + 1)


def test_table_and_csv(
    colour_run: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain([str(pictures[0])], model=colour_run, class_="red", out=tmp_path / "out")
    output = capsys.readouterr().out
    (line,) = [line.split() for line in output.splitlines() if str(pictures[0]) in line]
    assert line[1] == "blue"
    assert line[3] == "red"
    assert line[-1] == "0_relu5_3_for_red.png"
    assert f"wrote 1 pictures of relu5_3 to {tmp_path / 'out'}" in output
    explain([str(pictures[0])], model=colour_run, format="csv", out=tmp_path / "out")
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["path"], row["label"], row["explained"]) == (str(pictures[0]), "blue", "blue")
    assert row["out"] == str(tmp_path / "out" / "0_relu5_3.png")


def test_from_the_command_line(
    colour_run: Path,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["explain", str(pictures[0]), "--model", str(colour_run), "--format", "json"]
    assert main([*command, "--class", "red", "--layer", "pool4"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["out"] == str(Path("runs") / "explain" / "1")
    assert (tmp_path / "runs" / "explain" / "1" / "0_pool4_for_red.png").is_file()
    assert main([*command, "--class", "rad"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --class rad: ")
    assert "did you mean 'red'?" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "relu5_4"}, "no layer 'relu5_4'"),
        ({"class_": "pink"}, r"--class pink: .* its classes: blue, green, red, white"),
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": -1}, "workers=-1"),
        ({"format": "xml"}, "format='xml'"),
        ({"precision": "fp16", "device": "cpu"}, "precision=fp16"),
    ],
)
def test_impossible_options(options: dict[str, object], words: str, colour_run: Path, pictures: list[Path]) -> None:
    with pytest.raises(OptionError, match=words):
        explain([str(pictures[0])], model=colour_run, **options)  # type: ignore[arg-type]
    assert not Path("runs").exists()


def test_no_model_and_a_file_in_the_way(colour_run: Path, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="elsewhere"):
        explain([str(pictures[0])], model=tmp_path / "elsewhere")
    with pytest.raises(OptionError, match=r"--out .*is a file"):
        explain([str(pictures[0])], model=colour_run, out=pictures[1])
    with pytest.raises(OptionError, match=r"--out .*is the folder of a run"):
        explain([str(pictures[0])], model=colour_run, out=colour_run)


def test_the_model_takes_any_batch(colour_run: Path, write_colours: Writer, tmp_path: Path) -> None:
    write_colours(tmp_path / "many", count=3)
    one = explain([str(tmp_path / "many")], model=colour_run, batch_size=1, precision="fp32", out=tmp_path / "one")
    five = explain([str(tmp_path / "many")], model=colour_run, batch_size=5, precision="fp32", out=tmp_path / "five")
    for first, second in zip(one.rows, five.rows, strict=True):
        assert first.path == second.path
        difference = np.asarray(Image.open(first.out)).astype(int) - np.asarray(Image.open(second.out))
        assert np.abs(difference).max() <= 4
    torch.testing.assert_close(
        torch.tensor([row.predicted.probability for row in one.rows]),
        torch.tensor([row.predicted.probability for row in five.rows]),
        rtol=1e-4,
        atol=1e-5,
    )

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vggtransfer.classification import report_pictures
from vggtransfer.classification.evaluation import EvaluationResult, evaluate
from vggtransfer.classification.metrics import compute_metrics
from vggtransfer.classification.model import Task, VGGClassifier, load_classifier, save_classifier
from vggtransfer.classification.pictures import load_pictures
from vggtransfer.classification.recipe import finetune
from vggtransfer.classification.report import write_evaluation_report, write_training_report
from vggtransfer.classification.report_pictures import judged_pictures, report_layer
from vggtransfer.data.folders import Sample
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.recipe_files import read_recipe
from vggtransfer.training.contract import Progress
from vggtransfer.training.fit_options import fit_options
from vggtransfer.training.session import Session

Writer = Callable[..., list[Path]]
Reader = Callable[[Path], Any]

TINY: dict[str, Any] = {
    "arch": "vgg16_bn_x0_25",
    "weights": "none",
    "image_size": 32,
    "workers": 0,
    "precision": "fp32",
    "device": "cpu",
}
# As far as a folder can be called so; "/" comes in below.
NASTY = ('"><img src=x onerror=alert(1)>', "<script>alert(1)<script>", "two\nlines & {{ 7 * 7 }}")
SECTIONS = {"outcome", "data", "confusion", "classes", "calibration", "mistakes", "hardest", "again"}


@pytest.fixture(scope="module")
def nasty_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flat folder: three classes with names that no page should believe, and one picture that cannot be read."""
    root = tmp_path_factory.mktemp("data") / "<b>flowers"
    numbers = np.random.default_rng(0)
    for label, name in enumerate(NASTY):
        (root / name).mkdir(parents=True)
        for number in range(10):
            pixels = numbers.integers(0, 160, (40, 36, 3))
            pixels[..., label] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"<i onclick=x>{number}.png")
    (root / NASTY[0] / "<u>broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def nasty_run(nasty_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that trains the head, then block5 too; its pictures are mistaken now and then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGGTRANSFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        run = tmp_path_factory.mktemp("runs") / "<em>run"
        options = {**TINY, "unfreeze": "none block5@1", "epochs": 3, "val_fraction": 0.4, "augmentation": "light"}
        finetune(nasty_data, **options, out=run)
        yield run


class TestTrainingReport:
    def test_stands_alone_whatever_the_names(self, nasty_run: Path, read_page: Reader) -> None:
        page = read_page(nasty_run / "report.html")
        page.check_that_it_stands_alone()
        ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        assert ids == SECTIONS | {"model", "training", "recipe"}
        for name in NASTY:
            assert name.replace("\n", r"\n") in page.text
        assert "<u>broken.png" in page.text

    def test_tells_what_the_files_beside_it_tell(self, nasty_run: Path, nasty_data: Path, read_page: Reader) -> None:
        page = read_page(nasty_run / "report.html")
        rows = (nasty_run / "metrics.csv").read_text().splitlines()
        best = max(float(row.split(",")[7]) for row in rows[1:])
        assert f"{best * 12:.0f} of 12 validation pictures" in page.text
        assert "18 training and 12 validation pictures in 3 classes, with 6 training pictures a class" in page.text
        assert "block5 from epoch 2" in page.text
        assert "trained in epoch 1 (none)" in page.text
        assert "trained in epochs 2 to 3 (block5)" in page.text
        assert f"--config '{nasty_run / 'recipe.yaml'}'" in page.text
        assert f"vggtransfer explain --model '{nasty_run}' PICTURES..." in page.text
        assert "--val-fraction 0.4 0.2" in page.text  # its value and its default
        assert "--epochs 3 15" in page.text
        assert str(nasty_data.resolve()) in page.text
        environment = json.loads((nasty_run / "environment.json").read_text())[0]
        assert environment["packages"]["torch"] in page.text
        charts = [svg["aria-label"] for svg in page.all("svg")]
        assert charts == [
            "Loss by epoch",
            "Accuracy by epoch",
            "Learning rate after the epoch by epoch",
            "Accuracy by probability of the predicted class",
        ]

    def test_the_model_is_left_as_it_was(self, nasty_run: Path, tmp_path: Path) -> None:
        # The report of what trained looks through the policies; the model must not keep the last one.
        model = load_classifier(nasty_run)
        model.encoder.unfreeze("conv4_2,block3")
        model.head.requires_grad_(False)
        before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        assert set(before.values()) == {True, False}
        write_training(tmp_path, run=nasty_run, model=model)
        assert model.encoder.unfreeze_policy == "conv4_2,block3"
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
        assert not any(module.training for module in model.modules())

    @pytest.mark.parametrize(
        ("started", "expected"),
        [
            (("/somewhere/vggtransfer/__main__.py", 3), "torchrun --nproc-per-node 3 -m vggtransfer finetune --lr 1"),
            (("/somewhere/bin/vggtransfer", 2), "torchrun --nproc-per-node 2 -m vggtransfer finetune --lr 1"),
            (("mine/train.py", 2), "torchrun --nproc-per-node 2 train.py finetune --lr 1"),
            (("/somewhere/vggtransfer/__main__.py", 1), " as python -m vggtransfer finetune --lr 1"),
            (("/somewhere/bin/vggtransfer", 1), " as vggtransfer finetune --lr 1"),
        ],
    )
    def test_the_command_is_one_that_can_be_typed(
        self,
        started: tuple[str, int],
        expected: str,
        nasty_run: Path,
        tmp_path: Path,
        read_page: Reader,
    ) -> None:
        program, processes = started
        start = {"command": [program, "finetune", "--lr", "1"], "processes": processes}
        path = write_training(tmp_path, run=nasty_run, model=load_classifier(nasty_run), start=start)
        text = read_page(path).text
        assert expected in text
        assert "somewhere" not in text

    def test_pictures_are_scored_once_and_the_path_is_printed(
        self, nasty_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from vggtransfer.classification import inference

        calls = []
        score = inference.score_pictures
        monkeypatch.setattr(inference, "score_pictures", lambda *a, **k: calls.append(1) or score(*a, **k))
        run = finetune(nasty_data, **TINY, unfreeze="none", epochs=1, out=tmp_path / "run").run
        assert len(calls) == 1
        assert f"report: {run / 'report.html'}\n" in capsys.readouterr().out

    def test_a_full_disk_does_not_lose_the_training(
        self, nasty_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from vggtransfer.classification import report

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "report.html")

        monkeypatch.setattr(report, "write_page", full)
        result = finetune(nasty_data, **TINY, unfreeze="none", epochs=1, out=tmp_path / "run")
        assert load_classifier(result.run).task.classes == NASTY
        assert not (result.run / "report.html").exists()
        printed = capsys.readouterr().out
        assert "warning: figures and report are not complete: report.html: No space left on device" in printed
        assert "best validation accuracy" in printed

    @pytest.mark.parametrize("damage", ["recipe", "environment", "memory"])
    def test_nothing_that_befalls_the_report_fails_the_training(
        self,
        damage: str,
        nasty_data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        from vggtransfer.classification import inference, model

        load = model.load_classifier

        def load_and_damage(run: Path) -> VGGClassifier:
            if damage == "recipe":
                (run / "recipe.yaml").unlink()
            elif damage == "environment":
                (run / "environment.json").write_text("[")
            return load(run)

        def no_memory(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("no memory left\nand many more lines")

        monkeypatch.setattr(model, "load_classifier", load_and_damage)
        if damage == "memory":
            monkeypatch.setattr(inference, "score_pictures", no_memory)
        result = finetune(nasty_data, **TINY, unfreeze="none", epochs=1, out=tmp_path / "run")
        assert result.model.is_file()
        printed = capsys.readouterr().out
        (warning,) = re.findall("warning: figures and report are not complete: (.+)\n", printed)
        words = {"recipe": "recipe.yaml: no such file", "environment": "environment.json: is damaged"}
        assert words.get(damage, "no memory left") in warning
        assert "best validation accuracy" in printed
        assert f"vggtransfer predict --model {tmp_path / 'run'} PICTURES..." in printed
        assert "report:" not in printed

    def test_pictures_that_vanish_meanwhile(
        self,
        nasty_data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        read_page: Reader,
    ) -> None:
        from vggtransfer.classification import model

        data = tmp_path / "data"
        shutil.copytree(nasty_data, data)
        load = model.load_classifier

        def load_and_lose(run: Path) -> VGGClassifier:
            for folder in data.iterdir():  # some of each class, of either split
                for number in range(5):
                    (folder / f"<i onclick=x>{number}.png").unlink()
            return load(run)

        monkeypatch.setattr(model, "load_classifier", load_and_lose)
        result = finetune(data, **TINY, unfreeze="none", epochs=1, val_fraction=0.5, out=tmp_path / "run")
        printed = capsys.readouterr().out
        assert "cannot be read any more and is not among the scores" in printed
        page = read_page(result.run / "report.html")
        page.check_that_it_stands_alone()
        lost = printed.count("cannot be read any more")
        before = int(re.search(r"and (\d+) validation pictures", printed)[1])  # type: ignore[index]
        assert 0 < lost < before
        assert f"of {before - lost} validation pictures" in page.text

    def test_all_pictures_vanish(
        self, nasty_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from vggtransfer.classification import model

        data = tmp_path / "data"
        shutil.copytree(nasty_data, data)
        load = model.load_classifier
        monkeypatch.setattr(model, "load_classifier", lambda run: shutil.rmtree(data) or load(run))
        result = finetune(data, **TINY, unfreeze="none", epochs=1, out=tmp_path / "run")
        assert result.model.is_file()
        assert (result.run / "curves.png").is_file()
        assert "best validation accuracy" in capsys.readouterr().out


class TestEvaluationReport:
    def test_the_same_without_the_training(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, read_page: Reader, capsys: Any
    ) -> None:
        paths = write_colours(tmp_path / "data" / "test")
        paths[0].rename(tmp_path / "data" / "test" / "red" / "is_blue.png")
        (tmp_path / "data" / "test" / "red" / "broken.png").write_bytes(b"")
        evaluate(tmp_path / "data", model=colour_run, out=tmp_path / "out")
        assert f"report: {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out
        page = read_page(tmp_path / "out" / "report.html")
        page.check_that_it_stands_alone()
        assert {attributes["id"] for _, attributes in page.elements if "id" in attributes} == SECTIONS
        assert "The model puts 11 of 12 test pictures into the right one of 4 classes: 91.7%" in page.text
        assert "The most frequent confusion: red taken for blue, 1 picture." in page.text
        assert "1 unreadable picture left out" in page.text
        assert "test/red/is_blue.png" in page.text
        command = f"vggtransfer evaluate --data {tmp_path / 'data'} --model {colour_run} --out {tmp_path / 'out'}"
        assert command in page.text
        # One mistake; and the classes that are not perfect, red and blue, with up to four of their pictures.
        assert len(page.all("figure")) == 1 + 1 + 4 + 2
        assert len(page.all("img")) == 2 * (1 + 4 + 2)

    def test_no_mistakes(self, colour_run: Path, write_colours: Writer, tmp_path: Path, read_page: Reader) -> None:
        write_colours(tmp_path / "data", count=1)
        evaluate(tmp_path / "data", model=colour_run, out=tmp_path / "out")
        page = read_page(tmp_path / "out" / "report.html")
        page.check_that_it_stands_alone()
        assert page.all("img") == []
        assert "4 of 4 pictures into the right one of 4 classes: 100.0%" in page.text
        assert "None: all answers are right." in page.text

    def test_warns_of_pictures_it_was_trained_on(
        self, colour_run: Path, write_colours: Writer, record_pictures: Callable, tmp_path: Path, read_page: Reader
    ) -> None:
        paths = write_colours(tmp_path / "data" / "test", count=2)
        record_pictures(colour_run, tmp_path / "data", train=paths[:3])
        evaluate(tmp_path / "data", model=colour_run, out=tmp_path / "out")
        text = read_page(tmp_path / "out" / "report.html").text
        assert "3 of 8 pictures were in the training set of this model" in text

    def test_tells_how_the_model_was_trained(
        self, nasty_run: Path, nasty_data: Path, tmp_path: Path, read_page: Reader
    ) -> None:
        evaluate(nasty_data, model=nasty_run / "model.safetensors", workers=0, out=tmp_path / "out")
        page = read_page(tmp_path / "out" / "report.html")
        page.check_that_it_stands_alone()
        ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        assert ids == SECTIONS | {"trained"}
        assert "What trained beside the head: none block5@1" in page.text
        assert f"The report of the training: {nasty_run / 'report.html'}" in page.text
        assert "--val-fraction 0.4" in page.text
        assert "--momentum" not in page.text  # as by default

    def test_a_recipe_that_cannot_be_read_is_left_out(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, read_page: Reader
    ) -> None:
        write_colours(tmp_path / "data", count=1)
        (colour_run / "recipe.yaml").write_text("a: 1\na: 2\n")
        evaluate(tmp_path / "data", model=colour_run, out=tmp_path / "out")
        assert "How the model was trained" not in read_page(tmp_path / "out" / "report.html").text

    def test_a_folder_that_cannot_be_written(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        from vggtransfer.classification import report
        from vggtransfer.errors import OptionError

        write_colours(tmp_path / "data", count=1)

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(report, "write_page", full)
        with pytest.raises(OptionError, match="No space left"):
            evaluate(tmp_path / "data", model=colour_run, out=tmp_path / "out")
        assert "top-1 accuracy" in capsys.readouterr().out


def write_training(out: Path, *, run: Path, model: VGGClassifier, start: dict[str, object] | None = None) -> Path:
    """The report of a finished run once more, written to another folder, with another `start` if one is given."""
    recipe = read_recipe(run / "recipe.yaml")
    shutil.copyfile(run / "recipe.yaml", out / "recipe.yaml")
    (known,) = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    (out / "environment.json").write_text(json.dumps([{**known, **(start or {})}]))
    pictures = load_pictures(Path(str(recipe["data"])), val_fraction=0.4, seed=0, on_bad_image="skip", progress=False)
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            {name: value if name == "unfreeze" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
    labels = torch.tensor([sample.label for sample in pictures.val])
    probabilities = torch.rand(len(labels), 3).softmax(dim=1)
    return write_training_report(
        out,
        model=model,
        pictures=pictures,
        samples=pictures.val,
        probabilities=probabilities,
        scores=compute_metrics(probabilities, labels, pictures.classes),
        progress=Progress(epoch=3, best_epoch=1, best_accuracy=0.5, history=rows),
        options=fit_options(recipe, Session("cpu")),
        precision="fp32",
    )


def made_up(
    tmp_path: Path, names: tuple[str, ...], *, each: int, seed: int = 0
) -> tuple[EvaluationResult, VGGClassifier, list[Sample], torch.Tensor]:
    """Pictures, a random model, and probabilities that are right two times out of three."""
    torch.manual_seed(seed)
    encoder = VGGEncoder("vgg16_bn_x0_25", weights=None, layers=["pool5"], unfreeze="none")
    model = VGGClassifier(encoder, Task(names, 32, 1.0, "linear", 0.0)).eval()
    noise = np.random.default_rng(seed)
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(paths[-1])
    samples = [
        Sample(paths[(label * each + number) % 12], label) for label in range(len(names)) for number in range(each)
    ]
    labels = torch.tensor([sample.label for sample in samples])
    logits = torch.randn(len(samples), len(names))
    chance = torch.rand(len(samples))
    logits[torch.arange(len(samples)), torch.where(chance < 2 / 3, labels, (labels + 1) % len(names))] += 6
    probabilities = logits.softmax(dim=1)
    scores = compute_metrics(probabilities, labels, names)
    result = EvaluationResult(Path("model"), tmp_path, "all", tmp_path, "none", scores, None, (), None)
    return result, model, samples, probabilities


def write(out: Path, made: tuple[EvaluationResult, VGGClassifier, list[Sample], torch.Tensor]) -> Path:
    result, model, samples, probabilities = made
    return write_evaluation_report(
        out,
        result=result,
        model=model,
        samples=samples,
        probabilities=probabilities,
        precision="fp32",
        command=["vggtransfer", "evaluate"],
    )


def test_names_that_no_folder_can_have(tmp_path: Path, read_page: Reader) -> None:
    names = ("</script><script>alert(1)</script>", "</style><b>", "caf\udce9\x00", "javascript:alert(1)", "-->")
    made = made_up(tmp_path, names, each=4)
    page = read_page(write(tmp_path, made))
    page.check_that_it_stands_alone()
    for name in (*names[:2], r"caf\udce9\x00", *names[3:]):
        assert name in page.text


@pytest.mark.parametrize(("count", "named"), [(2, True), (25, True), (26, False), (200, False)])
def test_readable_and_small_for_any_number_of_classes(
    count: int, named: bool, tmp_path: Path, read_page: Reader
) -> None:
    names = tuple(f"species number {number}" for number in range(count))
    path = write(tmp_path, made_up(tmp_path, names, each=6))
    page = read_page(path)
    page.check_that_it_stands_alone()
    assert path.stat().st_size < 3_000_000 * (count + 100) / 300
    assert any(table.get("class") == "confusion" for table in page.all("table")) == named
    pictures = [picture["alt"] for picture in page.all("img")]
    assert (f"Confusion matrix of {count} classes" in pictures) == (not named)
    assert 0 < len(pictures) <= 2 * (12 + 6 * 4) + 1
    assert page.text.count(names[-1]) >= 1
    assert len(page.all("svg")) == 1


class TestPictures:
    def test_the_most_confident_mistakes_come_first(self, tmp_path: Path) -> None:
        result, model, samples, probabilities = made_up(tmp_path, ("a", "b", "c"), each=20)
        chosen = judged_pictures(model, samples, probabilities, result.scores, root=tmp_path, precision="fp32")
        labels = torch.tensor([sample.label for sample in samples])
        sure, predicted = probabilities.max(dim=1)
        expected = sorted(sure[predicted != labels].tolist(), reverse=True)[:12]
        assert [picture.predicted_probability for picture in chosen.mistakes] == expected
        for picture in chosen.mistakes:
            assert not picture.right
            assert picture.true == "abc"[labels[picture.index]]
            assert picture.true_probability == probabilities[picture.index, labels[picture.index]]
            assert picture.name == samples[picture.index].path.name
            assert picture.original.startswith("data:image/jpeg;base64,")
            assert picture.overlay
            assert picture.overlay != picture.original

    def test_the_hardest_classes_come_first(self, tmp_path: Path) -> None:
        result, model, samples, probabilities = made_up(tmp_path, tuple("abcdefgh"), each=9)
        chosen = judged_pictures(model, samples, probabilities, result.scores, root=tmp_path, precision="fp32")
        worst = sorted(result.scores.classes, key=lambda row: row.f1)[:6]
        assert [hard.scores for hard in chosen.hardest] == worst
        for hard in chosen.hardest:
            least = [picture.true_probability for picture in hard.pictures]
            assert least == sorted(least)
            assert len(least) == 4
            label = "abcdefgh".index(hard.scores.label)
            assert least[0] == min(
                row[label] for row, one in zip(probabilities, samples, strict=True) if one.label == label
            )

    def test_what_cannot_be_read_is_left_out(self, tmp_path: Path, read_page: Reader) -> None:
        made = made_up(tmp_path, ("a", "b", "c"), each=4)
        before = judged_pictures(made[1], made[2], made[3], made[0].scores, root=tmp_path, precision="fp32")
        lost = before.mistakes[0].name
        (tmp_path / lost).unlink()
        after = judged_pictures(made[1], made[2], made[3], made[0].scores, root=tmp_path, precision="fp32")
        kept = [replace(picture, original="", overlay="") for picture in before.mistakes if picture.name != lost]
        assert [replace(picture, original="", overlay="") for picture in after.mistakes] == kept
        for path in tmp_path.glob("*.png"):
            path.unlink()
        page = read_page(write(tmp_path, made))
        assert page.all("img") == []
        assert "their files cannot be read any more" in page.text

    def test_without_memory_for_heat_maps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_page: Reader
    ) -> None:
        def no_memory(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(report_pictures, "class_maps", no_memory)
        page = read_page(write(tmp_path, made_up(tmp_path, ("a", "b", "c"), each=4)))
        page.check_that_it_stands_alone()
        pictures = [picture["alt"] for picture in page.all("img")]
        assert pictures
        assert "the same with its heat map" not in pictures

    def test_the_model_is_left_as_it_was(self, tmp_path: Path) -> None:
        made = made_up(tmp_path, ("a", "b"), each=4)
        save_classifier(made[1], tmp_path / "before.safetensors")
        write(tmp_path, made)
        save_classifier(made[1], tmp_path / "after.safetensors")
        assert (tmp_path / "before.safetensors").read_bytes() == (tmp_path / "after.safetensors").read_bytes()
        assert not made[1].training

    @pytest.mark.parametrize(
        ("side", "expected"), [(224, ("relu5_3", 14)), (64, ("relu5_3", 4)), (32, ("relu4_3", 4)), (63, ("relu4_3", 7))]
    )
    def test_small_pictures_are_explained_by_an_earlier_layer(self, side: int, expected: tuple[str, int]) -> None:
        assert report_layer(VGGEncoder("vgg16", weights=None), side) == expected


MEASURE = """
<iframe src="report.html" style="width: 360px; height: 800px; border: 0"></iframe>
<iframe src="report.html" style="width: 1280px; height: 800px; border: 0"></iframe>
<script>
onload = () => {
  const pages = [...document.querySelectorAll("iframe")].map((frame) => frame.contentDocument);
  const beyond = pages.map(({ documentElement: page }) => page.scrollWidth - page.clientWidth);
  document.body.dataset.beyond = beyond.join(" ");
  document.body.dataset.seen = pages.every((page) => [...page.images].every((image) => image.naturalWidth > 0));
};
</script>
"""


def test_in_a_browser(nasty_run: Path, tmp_path: Path) -> None:
    """Where Chromium is: nothing is wider than a phone or a desk, all pictures are seen, and it has no complaints."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    shutil.copyfile(nasty_run / "report.html", tmp_path / "report.html")
    (tmp_path / "measure.html").write_text(MEASURE)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    logging = ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [browser, *options, *logging, (tmp_path / "measure.html").as_uri()]
    try:
        run = subprocess.run(command, check=False, capture_output=True, timeout=120, text=True)
    except subprocess.TimeoutExpired:
        pytest.skip("Chromium does not start here")
    found = re.search(r'data-beyond="(.+?)" data-seen="(\w+)"', run.stdout)
    if found is None:
        pytest.skip(f"Chromium cannot measure here: {run.stderr[-200:]}")
    assert found.groups() == ("0 0", "true")
    assert "CONSOLE" not in run.stderr

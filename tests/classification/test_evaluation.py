from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image

from vggtransfer.classification.evaluation import evaluate
from vggtransfer.classification.inference import score_pictures
from vggtransfer.classification.model import Task, VGGClassifier, save_classifier
from vggtransfer.classification.views import square_side, views
from vggtransfer.data.folders import Sample
from vggtransfer.data.scan import BadPicture
from vggtransfer.encoder.precision import resolve_device, resolve_precision
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import BadImageError, DataError, OptionError, WeightsError

Writer = Callable[..., list[Path]]
Recorder = Callable[..., None]


def samples_of(paths: list[Path]) -> list[Sample]:
    classes = sorted({path.parent.name for path in paths})
    return [Sample(path, classes.index(path.parent.name)) for path in paths]


class TestEvaluate:
    def test_known_answer(self, colour_run: Path, write_colours: Writer, tmp_path: Path) -> None:
        paths = write_colours(tmp_path / "data" / "test")
        # Two pictures under the wrong name: known errors.
        for number in (0, 1):
            paths[number].rename(tmp_path / "data" / "test" / "red" / f"is_blue_{number}.png")
        result = evaluate(tmp_path / "data", model=colour_run)
        assert result.scores.pictures == 12
        assert result.scores.top1_accuracy == pytest.approx(10 / 12)
        assert result.scores.top5_accuracy is None
        assert [row.label for row in result.scores.classes] == ["blue", "green", "red", "white"]
        assert result.scores.confusion == ((1, 0, 0, 0), (0, 3, 0, 0), (2, 0, 3, 0), (0, 0, 0, 3))
        assert result.scores.classes[0].precision == pytest.approx(1 / 3)
        assert result.scores.classes[2].recall == pytest.approx(3 / 5)
        assert result.folder == tmp_path / "data" / "test"
        assert result.trained_on is None
        assert result.bad == ()

    def test_json_is_all_there_is_on_standard_output(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_colours(tmp_path / "data" / "val")
        (tmp_path / "data" / "val" / "red" / "broken.jpg").write_bytes(b"not a picture")
        result = evaluate(tmp_path / "data", model=colour_run, format="json")
        captured = capsys.readouterr()
        content = json.loads(captured.out)
        assert content["top1_accuracy"] == 1
        assert content["pictures"] == 12
        assert content["classes"][2]["label"] == "red"
        assert content["confusion"] == [[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3]]
        assert [Path(bad["path"]).name for bad in content["bad_images"]] == ["broken.jpg"]
        assert content == json.loads(json.dumps(result.as_dict()))
        assert "broken.jpg" in captured.err

    def test_table_names_scores_classes_and_confusions(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        paths = write_colours(tmp_path / "data")
        paths[0].rename(tmp_path / "data" / "red" / "is_blue.png")
        evaluate(tmp_path / "data", model=colour_run)
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["top-1", "accuracy", "91.67%"] in lines
        assert ["red", "100.0%", "75.0%", "85.7%", "4"] in lines
        assert ["1", "red", "blue"] in lines

    def test_other_classes_are_refused_with_both_lists(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path
    ) -> None:
        write_colours(tmp_path / "data", colours=["blue", "red"])
        (tmp_path / "data" / "blue").rename(tmp_path / "data" / "azure")
        with pytest.raises(DataError) as caught:
            evaluate(tmp_path / "data", model=colour_run)
        message = str(caught.value)
        assert "\n" not in message
        assert "2 in the data (azure, red)" in message
        assert "4 in the model (blue, green, red, white)" in message
        assert "only in the data: azure; only in the model: blue, green, white" in message

    def test_out_gets_the_files(self, colour_run: Path, write_colours: Writer, tmp_path: Path) -> None:
        write_colours(tmp_path / "data", count=1)
        broken = tmp_path / "data" / "green" / "ünlesbar.png"
        broken.write_bytes(b"")
        result = evaluate(tmp_path / "data", model=colour_run, out=tmp_path / "new" / "report")
        assert result.out == tmp_path / "new" / "report"
        content = json.loads((result.out / "evaluation.json").read_text(encoding="utf-8"))
        assert content == json.loads(json.dumps(result.as_dict()))
        with Image.open(result.out / "confusion.png") as picture:
            assert picture.format == "PNG"
        with (result.out / "bad_images.csv").open(encoding="utf-8", newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == [str(broken)]
        (start,) = json.loads((result.out / "environment.json").read_text(encoding="utf-8"))
        assert torch.__version__.startswith(start["packages"]["torch"])
        names = {"report.html", "evaluation.json", "confusion.png", "bad_images.csv", "environment.json"}
        assert {path.name for path in result.out.iterdir()} == names

    def test_without_out_the_next_free_number_is_taken(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_colours(tmp_path / "data", count=1)
        monkeypatch.chdir(tmp_path)
        for number in ("1", "2"):
            assert evaluate(Path("data"), model=colour_run).out == Path("runs/evaluate") / number
            assert (tmp_path / "runs" / "evaluate" / number / "report.html").is_file()

    @pytest.mark.parametrize("form", ["table", "json"])
    def test_without_out_and_without_a_place_to_write(
        self,
        form: Literal["table", "json"],
        colour_run: Path,
        write_colours: Writer,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        write_colours(tmp_path / "data", count=1)
        Path("runs").write_text("a file where the folder would be")
        result = evaluate(tmp_path / "data", model=colour_run, format=form)
        assert (result.out, result.scores.top1_accuracy) == (None, 1)
        captured = capsys.readouterr()
        _, warning = captured.err.splitlines()  # the first one says that its training pictures are not known
        assert warning.startswith("warning: nothing is written: cannot create the run directory runs/evaluate")
        if form == "json":
            content = json.loads(captured.out)
            assert (content["top1_accuracy"], content["out"]) == (1, None)
        else:
            assert ["top-1", "accuracy", "100.00%"] in [line.split() for line in captured.out.splitlines()]
            assert "wrote" not in captured.out

    def test_the_disk_is_full_without_out(
        self,
        colour_run: Path,
        write_colours: Writer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        from vggtransfer.classification import figures

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        write_colours(tmp_path / "data", count=1)
        monkeypatch.setattr(figures, "draw_confusion", full)
        result = evaluate(tmp_path / "data", model=colour_run)
        assert result.scores.top1_accuracy == 1
        captured = capsys.readouterr()
        folder = Path("runs") / "evaluate" / "1"
        assert captured.err.splitlines()[1:] == [f"warning: {folder} is not complete: No space left on device"]
        assert "100.00%" in captured.out
        assert f"wrote {folder}: evaluation.json\n" in captured.out
        assert "report.html" not in captured.out

    @pytest.mark.parametrize(
        ("place", "words"),
        [
            ("file", "file: is a file"),
            ("file/below", "file is a file"),
            ("new/forbidden", "no permission"),
            ("run", "is the folder of a run"),
        ],
    )
    def test_an_impossible_out_is_refused_before_any_work(
        self, place: str, words: str, colour_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
        # No data folder: had the work begun, that would be the error.
        with pytest.raises(OptionError, match=rf"^--out .*{words}"):
            evaluate(tmp_path / "no data", model=colour_run, out=tmp_path / place)

    def test_bad_pictures_can_stop_it(self, colour_run: Path, write_colours: Writer, tmp_path: Path) -> None:
        write_colours(tmp_path / "data", count=1)
        (tmp_path / "data" / "red" / "broken.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"broken\.png"):
            evaluate(tmp_path / "data", model=colour_run, on_bad_image="stop")

    def test_only_bad_pictures(self, colour_run: Path, write_colours: Writer, tmp_path: Path) -> None:
        for path in write_colours(tmp_path / "data", count=1):
            path.write_bytes(b"")
        with pytest.raises(DataError, match="none of the 4 pictures can be read"):
            evaluate(tmp_path / "data", model=colour_run)

    def test_many_classes_show_the_worst(
        self, tmp_path: Path, write_colours: Writer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        classes = tuple(f"class_{number:02}" for number in range(60))
        torch.manual_seed(0)
        encoder = VGGEncoder("vgg16_bn_x0_25", weights=None, layers=["pool5"])
        save_classifier(VGGClassifier(encoder, Task(classes, 32, 1.0, "linear", 0.0)), tmp_path / "model.safetensors")
        first = write_colours(tmp_path, colours=["red"], count=1)[0]
        for name in classes:
            (tmp_path / "data" / name).mkdir(parents=True)
            (tmp_path / "data" / name / "one.png").write_bytes(first.read_bytes())
        result = evaluate(tmp_path / "data", model=tmp_path / "model.safetensors")
        assert result.scores.top1_accuracy == pytest.approx(1 / 60)
        assert result.scores.top5_accuracy == pytest.approx(5 / 60)
        output = capsys.readouterr().out
        assert "the 20 classes with the lowest F1 of 60" in output
        assert sum(line.startswith("class_") for line in map(str.strip, output.splitlines())) == 20

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"batch_size": 0}, "batch_size=0"),
            ({"workers": -1}, "workers=-1"),
            ({"tta": "nine-crop"}, "five-crop"),
            ({"split": "valid"}, "split='valid'"),
            ({"format": "xml"}, "format='xml'"),
            ({"device": "tpu"}, "device=tpu"),
            ({"precision": "fp16", "device": "cpu"}, "precision=fp16"),
            ({"precision": "int8"}, "precision='int8'"),
        ],
    )
    def test_impossible_options(self, options: dict[str, object], words: str, colour_run: Path, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=words):
            evaluate(tmp_path, model=colour_run, **options)  # type: ignore[arg-type]

    def test_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="elsewhere"):
            evaluate(tmp_path, model=tmp_path / "elsewhere")

    def test_texts_do_for_paths(self, colour_run: Path, write_colours: Writer, tmp_path: Path) -> None:
        write_colours(tmp_path / "data", count=1)
        texts = {"model": str(colour_run), "out": str(tmp_path / "report")}
        result = evaluate(str(tmp_path / "data"), **texts)  # type: ignore[arg-type]
        assert (result.data, result.model, result.out) == (tmp_path / "data", colour_run, tmp_path / "report")
        assert (tmp_path / "report" / "evaluation.json").is_file()


class TestPicturesTheModelWasTrainedOn:
    def test_warning_on_a_test_folder(
        self,
        colour_run: Path,
        write_colours: Writer,
        record_pictures: Recorder,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        data = tmp_path / "data"
        train = write_colours(data / "train", seed=1)
        write_colours(data / "test", seed=2)
        (data / "test" / "red" / "leaked.png").write_bytes(train[6].read_bytes())
        record_pictures(colour_run, data, train=train)
        result = evaluate(data, model=colour_run)
        assert (result.trained_on, result.scores.pictures) == (1, 13)
        assert "1 of 13 pictures were in the training set of this model" in capsys.readouterr().err

    def test_no_warning_when_there_is_nothing_to_warn_of(
        self,
        colour_run: Path,
        write_colours: Writer,
        record_pictures: Recorder,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        data = tmp_path / "data"
        record_pictures(colour_run, data, train=write_colours(data / "train", seed=1))
        write_colours(data / "test", seed=2)
        assert evaluate(data, model=colour_run / "model.safetensors").trained_on == 0
        assert capsys.readouterr().err == ""

    @pytest.fixture
    def flat_folder(self, colour_run: Path, write_colours: Writer, record_pictures: Recorder, tmp_path: Path) -> Path:
        """Of each class, the run trained on two pictures, validated on a third, and never saw a fourth."""
        data = tmp_path / "data"
        paths = write_colours(data)
        held_out = [path for path in paths if path.name == "2.png"]
        record_pictures(colour_run, data, train=[path for path in paths if path not in held_out], val=held_out)
        for path in write_colours(tmp_path / "more", count=1, seed=5):
            path.rename(data / path.parent.name / "new.png")
        return data

    @pytest.mark.parametrize(
        ("split", "pictures", "trained_on"), [("auto", 8, 0), ("val", 4, 0), ("train", 8, 8), ("all", 16, 8)]
    )
    def test_a_flat_folder_is_divided_as_in_the_run(
        self, split: str, pictures: int, trained_on: int, colour_run: Path, flat_folder: Path
    ) -> None:
        result = evaluate(flat_folder, model=colour_run, split=split)  # type: ignore[arg-type]
        assert (result.scores.pictures, result.trained_on) == (pictures, trained_on)
        assert result.folder == flat_folder
        assert {row.support for row in result.scores.classes} == {pictures // 4}

    def test_split_folders_without_val_use_the_run(
        self, colour_run: Path, write_colours: Writer, record_pictures: Recorder, tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        paths = write_colours(data / "train", seed=1)
        write_colours(data / "test", seed=2)
        record_pictures(colour_run, data, train=paths[1:], val=paths[:1])
        assert evaluate(data, model=colour_run, split="val").scores.pictures == 1
        assert evaluate(data, model=colour_run, split="auto").scores.pictures == 12

    def test_nothing_left(
        self, colour_run: Path, write_colours: Writer, record_pictures: Recorder, tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        record_pictures(colour_run, data, train=write_colours(data))
        with pytest.raises(DataError, match=r"all 12 pictures are in the training set .* --split all"):
            evaluate(data, model=colour_run)
        with pytest.raises(DataError, match="--split val: none of the 12 pictures"):
            evaluate(data, model=colour_run, split="val")

    def test_without_a_record_a_flat_folder_has_no_val(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path
    ) -> None:
        write_colours(tmp_path / "data")
        assert evaluate(tmp_path / "data", model=colour_run).scores.pictures == 12
        with pytest.raises(DataError, match="no val folder"):
            evaluate(tmp_path / "data", model=colour_run, split="val")


class TestScorePictures:
    def test_order_and_batches_do_not_matter(
        self, colour_classifier: VGGClassifier, write_colours: Writer, tmp_path: Path
    ) -> None:
        samples = samples_of(write_colours(tmp_path))
        probabilities, labels = score_pictures(colour_classifier, samples, batch_size=5, workers=2)
        assert probabilities.shape == (12, 4)
        assert probabilities.dtype == torch.float32
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(12))
        assert labels.tolist() == [sample.label for sample in samples]
        backwards, _ = score_pictures(colour_classifier, samples[::-1], batch_size=12)
        torch.testing.assert_close(backwards.flip(0), probabilities, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_bad_picture_is_an_error_unless_somebody_takes_it(
        self, workers: int, colour_classifier: VGGClassifier, write_colours: Writer, tmp_path: Path
    ) -> None:
        samples = samples_of(write_colours(tmp_path, count=1))
        expected, _ = score_pictures(colour_classifier, samples, precision="fp32")
        samples[1].path.write_bytes(b"no picture")
        error = None
        try:
            score_pictures(colour_classifier, samples, workers=workers)
        except BadImageError as caught:
            error = str(caught)
        assert error is not None
        assert error.startswith(f"{samples[1].path}: ")
        bad: list[BadPicture] = []
        probabilities, labels = score_pictures(
            colour_classifier, samples, batch_size=3, workers=workers, precision="fp32", on_bad=bad.append
        )
        assert [f"{picture.path}: {picture.reason}" for picture in bad] == [error]
        assert labels.tolist() == [0, 2, 3]
        torch.testing.assert_close(probabilities, expected[[0, 2, 3]], rtol=1e-4, atol=1e-5)

    def test_flip_is_the_mean_over_both_pictures(
        self, colour_classifier: VGGClassifier, write_colours: Writer, tmp_path: Path
    ) -> None:
        paths = write_colours(tmp_path / "plain", count=1)
        for path in paths:
            mirrored = tmp_path / "mirrored" / path.parent.name / path.name
            mirrored.parent.mkdir(parents=True)
            with Image.open(path) as picture:
                picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
        plain, _ = score_pictures(colour_classifier, samples_of(paths))
        mirrored_paths = [tmp_path / "mirrored" / path.parent.name / path.name for path in paths]
        mirror, _ = score_pictures(colour_classifier, samples_of(mirrored_paths))
        both, _ = score_pictures(colour_classifier, samples_of(paths), tta="flip")
        assert (plain - mirror).abs().max() > 1e-3
        torch.testing.assert_close(both, (plain + mirror) / 2, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("tta", ["five-crop", "ten-crop"])
    def test_crops_are_averaged(
        self, tta: str, colour_classifier: VGGClassifier, write_colours: Writer, tmp_path: Path
    ) -> None:
        samples = samples_of(write_colours(tmp_path, count=1))
        probabilities, _ = score_pictures(colour_classifier, samples, tta=tta)  # type: ignore[arg-type]
        plain, _ = score_pictures(colour_classifier, samples)
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))
        assert probabilities.argmax(dim=1).tolist() == [0, 1, 2, 3]
        assert not torch.equal(probabilities, plain)

    def test_mode_and_weights_are_left_alone(
        self, colour_classifier: VGGClassifier, write_colours: Writer, tmp_path: Path
    ) -> None:
        before = {key: tensor.clone() for key, tensor in colour_classifier.state_dict().items()}
        colour_classifier.train()
        try:
            first, _ = score_pictures(colour_classifier, samples_of(write_colours(tmp_path, count=1)))
            assert colour_classifier.training
            assert colour_classifier.head.get_submodule("dropout").training
        finally:
            colour_classifier.eval()
        assert not first.requires_grad
        for key, tensor in colour_classifier.state_dict().items():
            assert torch.equal(tensor, before[key]), key

    def test_bfloat16_stays_near(self, colour_classifier: VGGClassifier, write_colours: Writer, tmp_path: Path) -> None:
        samples = samples_of(write_colours(tmp_path, count=1))
        exact, _ = score_pictures(colour_classifier, samples, precision="fp32")
        rough, _ = score_pictures(colour_classifier, samples, precision="bf16")
        assert rough.dtype == torch.float32
        assert not torch.equal(exact, rough)
        torch.testing.assert_close(rough, exact, rtol=0, atol=0.1)

    def test_a_model_that_gives_nan(
        self, colour_classifier: VGGClassifier, write_colours: Writer, tmp_path: Path
    ) -> None:
        encoder = VGGEncoder("vgg16_bn_x0_25", weights=None, layers=["pool5"])
        model = VGGClassifier(encoder, colour_classifier.task)
        torch.nn.init.constant_(next(model.head.parameters()), torch.nan)
        samples = samples_of(write_colours(tmp_path, count=1))
        with pytest.raises(WeightsError, match="4 of 4 pictures got NaN"):
            score_pictures(model, samples, precision="fp32")
        with pytest.raises(OptionError, match="precision=fp32"):
            score_pictures(model, samples, precision="bf16")


class TestViews:
    pictures = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)

    def test_five_crop_is_centre_and_corners(self) -> None:
        got = list(views(self.pictures, "five-crop", image_size=6))
        places = [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)]
        assert len(got) == 5
        for view, (top, left) in zip(got, places, strict=True):
            assert torch.equal(view, self.pictures[..., top : top + 6, left : left + 6])

    def test_ten_crop_adds_the_mirror_images(self) -> None:
        five = list(views(self.pictures, "five-crop", image_size=6))
        ten = list(views(self.pictures, "ten-crop", image_size=6))
        assert len(ten) == 10
        for index, view in enumerate(five):
            assert torch.equal(ten[2 * index], view)
            assert torch.equal(ten[2 * index + 1], view.flip(3))

    def test_none_is_the_picture_itself(self) -> None:
        (only,) = views(self.pictures, "none", image_size=8)
        assert torch.equal(only, self.pictures)

    @pytest.mark.parametrize(("image_size", "fraction"), [(224, 0.875), (96, 0.875), (65, 0.8), (299, 0.875)])
    def test_the_centre_view_is_what_evaluation_sees(self, image_size: int, fraction: float) -> None:
        import numpy as np

        from vggtransfer.data.transforms import evaluation_transform

        picture = np.random.default_rng(0).integers(0, 256, (330, 400, 3), dtype=np.uint8)
        plain = evaluation_transform(image_size, crop_fraction=fraction)(picture, key=0)
        side = square_side("five-crop", image_size=image_size, crop_fraction=fraction)
        square = evaluation_transform(side, crop_fraction=1.0)(picture, key=0)
        centre = next(views(torch.from_numpy(square).permute(2, 0, 1)[None], "five-crop", image_size=image_size))
        assert torch.equal(centre[0].permute(1, 2, 0), torch.from_numpy(plain))

    def test_sides(self) -> None:
        assert square_side("flip", image_size=224, crop_fraction=0.875) == 224
        assert square_side("ten-crop", image_size=224, crop_fraction=0.875) == 256
        assert square_side("five-crop", image_size=32, crop_fraction=1.0) == 37


class TestDevice:
    def test_names(self) -> None:
        assert resolve_device("cpu") == torch.device("cpu")
        assert resolve_device("auto").type in ("cpu", "cuda", "mps")

    @pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "cuda:-1", "cpu:0", "", "CUDA"])
    def test_impossible_names(self, name: str) -> None:
        with pytest.raises(OptionError, match="is not possible"):
            resolve_device(name)

    def test_a_gpu_that_is_not_there(self) -> None:
        with pytest.raises(OptionError, match="device=cuda:99: torch finds"):
            resolve_device("cuda:99")

    def test_auto_precision_is_one_of_two(self) -> None:
        assert resolve_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


class TestWhatWasTrainedOn:
    def test_the_networks_of_a_comparison_share_a_record(
        self, colour_run: Path, write_colours: Writer, record_pictures: Recorder, tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        paths = write_colours(data)
        comparison = tmp_path / "comparison"
        (comparison / "vgg").mkdir(parents=True)
        (colour_run / "model.safetensors").rename(comparison / "vgg" / "model.safetensors")
        record_pictures(comparison, data, train=paths[1:], test=paths[:1])
        (comparison / "recipe.yaml").write_text("archs: vgg16\n")
        assert evaluate(data, model=comparison / "vgg").scores.pictures == 1

    def test_a_table_that_is_no_record_is_not_taken_for_one(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_colours(tmp_path / "data")
        (colour_run / "pictures.csv").write_text("path,label\na.jpg,red\n")
        result = evaluate(tmp_path / "data", model=colour_run)
        assert result.trained_on is None
        assert "which pictures the model was trained on is not known" in capsys.readouterr().err

    def test_a_reader_that_goes_away_costs_no_results(
        self, colour_run: Path, write_colours: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_colours(tmp_path / "data")

        def closed(*_: object) -> None:
            raise BrokenPipeError

        monkeypatch.setattr("vggtransfer.classification.evaluation._print", closed)
        with pytest.raises(BrokenPipeError):
            evaluate(tmp_path / "data", model=colour_run, out=tmp_path / "out")
        assert (tmp_path / "out" / "report.html").is_file()

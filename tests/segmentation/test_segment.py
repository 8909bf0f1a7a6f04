"""`vggtransfer segment` from pictures to masks, on drawn boxes and disks."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vggtransfer.classification.model import load_classifier
from vggtransfer.classification.recipe import finetune
from vggtransfer.cli import main
from vggtransfer.errors import DataError, OptionError, TrainingError, WeightsError
from vggtransfer.segmentation.evaluation import segment_evaluate
from vggtransfer.segmentation.model import load_segmenter
from vggtransfer.segmentation.prediction import segment_predict
from vggtransfer.segmentation.recipe import segment
from vggtransfer.training.interruption import TrainingInterrupted

TINY = {
    "arch": "vgg16_bn_x0_25",
    "unfreeze": "block5",
    "image_size": "48x40",
    "batch_size": 8,
    "epochs": 2,
    "warmup_epochs": 0.0,
    "lr": 1e-2,
    "workers": 0,
    "precision": "fp32",
    "device": "cpu",
    "augmentation": "flip",
}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def run(scenes, tmp_path_factory):
    os.environ["VGGTRANSFER_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    return segment(
        scenes, **{**TINY, "epochs": 8}, classes="grey,red box,blue disk", out=tmp_path_factory.mktemp("run") / "one"
    )


def test_a_run_learns_and_leaves_all_there_is_to_know(run, scenes, read_page):
    assert run.best_mean_iou > 0.6  # a guess of grey everywhere reaches 0.24
    rows = rows_of(run.run / "metrics.csv")
    assert len(rows) == 8
    assert float(rows[run.best_epoch - 1]["val_mean_iou"]) == pytest.approx(run.best_mean_iou)
    assert {"train_pixel_accuracy", "val_pixel_accuracy", "val_mean_dice"} <= set(rows[0])
    assert {path.name for path in run.run.iterdir()} >= {"recipe.yaml", "pictures.csv", "environment.json"}
    trained = load_segmenter(run.run)
    assert trained.coding.names == ("grey", "red box", "blue disk")
    assert trained.seen.exact == (40, 48)
    page = read_page(run.run / "report.html")
    page.check_that_it_stands_alone()
    for words in ("red box", "Worst pictures", "segment-evaluate", "val/images/val"):
        assert words in page.text
    assert len(page.all("img")) == 3 * 4 + 3 * 4


def test_frozen_layers_stay_as_they_were(run):
    from vggtransfer.encoder.vgg import VGGEncoder

    fresh = VGGEncoder("vgg16_bn_x0_25").trunk.state_dict()
    tensors = load_file(run.model)
    same = {name: torch.equal(value, tensors[f"encoder.trunk.{name}"]) for name, value in fresh.items()}
    assert all(equal for name, equal in same.items() if "5_" not in name)
    assert not same["conv5_3.weight"]


def test_evaluation_agrees_with_the_validation_of_the_run(run, scenes, tmp_path, capsys):
    result = segment_evaluate(scenes, model=run.run, split="val", precision="fp32", device="cpu", out=tmp_path / "out")
    assert result.scores.mean_iou == pytest.approx(run.best_mean_iou, abs=2e-3)
    assert (result.pictures, result.trained_on) == (4, 0)
    assert "red box" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [row["class"] for row in written["classes"]] == ["grey", "red box", "blue disk"]
    assert len(written["by_picture"]) == 4
    test = segment_evaluate(scenes, model=run.run, tta="flip", tile=32, device="cpu", out=tmp_path / "test")
    assert test.split == "test"
    assert test.scores.mean_iou > 0.5
    capsys.readouterr()
    words = ["--data", scenes, "--model", run.run, "--split", "train", "--device", "cpu", "--format", "json"]
    assert main(["segment-evaluate", *map(str, words)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["trained_on"] == 16
    assert json.loads(printed.out)["out"] == "runs/segment-evaluate/1"
    assert "16 of 16 pictures were in the training set" in printed.err


def test_masks_are_painted_in_full_size_with_the_values_of_the_training(run, scenes, tmp_path):
    source = scenes / "test" / "images" / "test1.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    result = segment_predict([source, broken, source.parent], model=run.run, out=tmp_path / "out", probabilities=True)
    assert len(result.rows) == 4
    assert [picture.path for picture in result.bad] == [broken]
    (row,) = [row for row in result.rows if row.path == source]
    with Image.open(row.masks[0]) as mask, Image.open(row.overlay) as overlay:
        assert mask.size == overlay.size == (56, 40)
        painted = np.array(mask)
    truth = np.array(Image.open(scenes / "test" / "masks" / "test1.png"))
    assert (painted == truth).mean() > 0.8
    probabilities = np.load(row.probabilities)
    assert probabilities.shape == (3, 40, 56)
    assert (probabilities.argmax(axis=0) == painted).mean() > 0.99  # float16 makes ties
    assert sum(row.shares.values()) == pytest.approx(1)
    with pytest.raises(OptionError, match="has masks that are not from segment-predict"):
        segment_predict(source, model=run.run, out=scenes / "test")
    # What was painted serves as a mask again, with its palette.
    again = tmp_path / "again"
    for kind, path in (("images", source), ("masks", row.masks[0])):
        (again / kind).mkdir(parents=True)
        shutil.copy(path, again / kind / f"one{path.suffix}")
    perfect = segment_evaluate(again, model=run.run, precision="auto", device="cpu", out=tmp_path / "perfect")
    assert perfect.scores.pixel_accuracy > 0.99


def test_a_stopped_run_goes_on_as_if_it_had_not_been(scenes, tmp_path, monkeypatch):
    from vggtransfer.segmentation.objective import SegmentationObjective

    settings = {**TINY, "augmentation": "standard", "unfreeze": "none block5@1", "ema": 0.9}
    whole = segment(scenes, **settings, out=tmp_path / "whole")
    original, calls = SegmentationObjective.training, 0

    def interrupting(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(SegmentationObjective, "training", interrupting)
    with pytest.raises(TrainingInterrupted, match="Go on with: vggtransfer segment --resume"):
        segment(scenes, **settings, out=tmp_path / "run")
    moved = tmp_path / "moved"
    shutil.copytree(scenes, moved)
    assert segment(moved, resume=tmp_path / "run").history[-1]["val_mean_iou"] == whole.history[-1]["val_mean_iou"]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    mask = moved / "train" / "masks" / "train0.png"
    Image.fromarray(np.array(Image.open(mask))[::-1] % 2).save(mask)
    with pytest.raises(TrainingError, match="the meaning of the masks has changed"):
        segment(moved, resume=tmp_path / "run", epochs=3)


def test_one_class_against_the_rest_and_classes_by_themselves(scenes, tmp_path):
    """Binary masks with a DeepLab, and one mask a class with an FCN."""
    for number, path in enumerate(sorted((scenes / "train" / "masks").iterdir())):
        classes = np.array(Image.open(path))
        picture = Image.open(scenes / "train" / "images" / path.name)
        for root, masks in (
            ("binary", {"masks": 255 * (classes == 1)}),
            ("layers", {"masks/box": 255 * (classes == 1), "masks/any": 255 * (classes > 0)}),
        ):
            for folder in ("images", *masks):
                (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / root / "images" / path.name)
            for folder, mask in masks.items():
                Image.fromarray(mask.astype(np.uint8)).save(tmp_path / root / folder / path.name)
        if number == 11:
            break
    small = {**TINY, "epochs": 1, "hidden_channels": 32, "image_size": 40}
    loss = {"loss": "focal+dice", "class_weights": "balanced"}
    binary = segment(tmp_path / "binary", **small, **loss, decoder="deeplab-largefov", out=tmp_path / "one")
    trained = load_segmenter(binary.run)
    assert (trained.coding.task, trained.coding.names, trained.coding.values) == ("binary", ("foreground",), (0, 255))
    assert (binary.run / "report.html").is_file()
    layers = segment(tmp_path / "layers", **small, decoder="fcn8s", loss="ce+lovasz", out=tmp_path / "two")
    painted = segment_predict([tmp_path / "layers" / "images"], model=layers.run, out=tmp_path / "painted", tile=32)
    assert [path.parent.name for path in painted.rows[0].masks] == ["any", "box"]
    assert (layers.run / "report.html").is_file()
    with pytest.raises(DataError, match="all masks show a alone"):
        segment(tmp_path / "binary", **TINY, classes="a,b,c", out=tmp_path / "no")
    result = segment_evaluate(tmp_path / "layers", model=layers.run, split="val", device="cpu", out=tmp_path / "out")
    assert result.pictures == 2
    assert result.scores.mean_iou == pytest.approx(layers.best_mean_iou, abs=0.05)
    with pytest.raises(DataError, match="has binary masks of foreground; the model paints multilabel masks"):
        segment_evaluate(tmp_path / "binary", model=layers.run, classes="foreground", out=tmp_path / "no")
    with pytest.raises(DataError, match="has masks of any, box each; the model paints binary masks of foreground"):
        segment_evaluate(tmp_path / "layers", model=binary.run, split="all", out=tmp_path / "no")


def test_pairs_that_do_not_fit_are_named_and_left_out(write_scenes, tmp_path, capsys):
    data = write_scenes(tmp_path / "data", train=10, val=2)
    masks, images = data / "train" / "masks", data / "train" / "images"
    (masks / "train0.png").unlink()
    Image.new("L", (10, 10)).save(masks / "train1.png")
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(masks / "train2.png")
    (masks / "train3.png").write_bytes(b"no picture")
    (images / "train4.png").write_bytes(b"no picture")
    for kind in ("images", "masks"):
        shutil.copy(data / "train" / kind / "train9.png", data / "val" / kind / "val0.png")
    result = segment(data, **{**TINY, "epochs": 1}, classes=3, out=tmp_path / "run")
    rows = {row["path"]: row["reason"] for row in rows_of(result.run / "bad_images.csv")}
    assert rows.pop(str(images / "train0.png")) == "has no mask"
    assert rows.pop(str(masks / "train1.png")) == "is 10 x 10, its picture 48 x 40"
    assert rows.pop(str(masks / "train2.png")) == "has the value 9, which is no class (0 to 2) nor ignored"
    assert "cannot be read as a mask" in rows.pop(str(masks / "train3.png"))
    assert "not a picture" in rows.pop(str(images / "train4.png"))
    assert rows == {}
    assert [row["split"] for row in rows_of(result.run / "pictures.csv")] == ["train"] * 5 + ["val"] * 2
    told = capsys.readouterr().out
    assert "5 files left out" in told
    assert "1 picture in both train and val" in told
    with pytest.raises(DataError, match=r"train0\.png: has no mask"):
        segment(data, **TINY, classes=3, on_bad_image="stop", out=tmp_path / "stopped")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--decoder fcn8s --decoder-channels 8,8,8,8,8", "--decoder-channels 8,8,8,8,8 would change nothing"),
        ("--dropout 0.1", "--dropout 0.1 would change nothing: --decoder unet has none"),
        ("--loss dice --class-weights balanced", "--class-weights balanced would change nothing"),
        ("--loss lovasz --label-smoothing 0.1", "--label-smoothing 0.1 would change nothing"),
        ("--image-size none", "give the size of training crops"),
        ("--image-size 12y3", "--image-size 12y3 is not possible"),
        ("--decoder-channels 8,8", "use five numbers"),
        ("--image-size 32 --batch-size 1", "leaves BatchNorm a single value"),
        ("--unfreeze block6", "has no block or layer 'block6'"),
        ("--data nowhere", "nowhere: there is no such folder"),
        ("--decoder unett", "did you mean 'unet'?"),
    ],
)
def test_mistakes_are_told_before_any_work(scenes, capsys, options, message):
    words = options.split()
    assert main(["segment", *([] if "--data" in words else ["--data", str(scenes)]), *words]) == 2
    assert message in capsys.readouterr().err


def test_runs_of_other_commands(run, scenes, tmp_path):
    with pytest.raises(OptionError, match=r"--overlap 0\.5 would change nothing without --tile"):
        segment_evaluate(scenes, model=run.run, overlap=0.5)
    with pytest.raises(WeightsError, match=r"this is not a classifier trained by `vggtransfer finetune`"):
        load_classifier(run.run)
    for label in ("a", "b"):
        (tmp_path / "flowers" / label).mkdir(parents=True)
        for number in range(2):
            shutil.copy(scenes / "val" / "images" / "val0.png", tmp_path / "flowers" / label / f"{number}.png")
    classifier = finetune(
        tmp_path / "flowers",
        arch="vgg16_bn_x0_25",
        weights=str(run.run),
        image_size=32,
        epochs=1,
        batch_size=2,
        workers=0,
        device="cpu",
        out=tmp_path / "classifier",
    )
    assert str(run.model) in load_classifier(classifier.run).encoder.origin
    with pytest.raises(WeightsError, match=r"this is not a network trained by `vggtransfer segment`"):
        load_segmenter(classifier.run)


def test_two_processes_train_as_one(scenes, tmp_path):
    """Without BatchNorm in training mode, and with masks that count all their pixels, two compute what one does."""
    settings = {**TINY, "normalization": "none", "unfreeze": "none", "epochs": 1, "optimizer": "sgd", "loss": "ce"}
    alone = segment(scenes, **settings, out=tmp_path / "one").history[0]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if name != "device"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*launcher, "vggtransfer", "segment", "--device=cpu", "--data", scenes, "--out", tmp_path / "two", *words]
    finished = subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("best validation mean IoU") == 1
    (together,) = rows_of(tmp_path / "two" / "metrics.csv")
    for column in ("train_loss", "train_pixel_accuracy", "val_loss", "val_mean_iou"):
        assert float(together[column]) == pytest.approx(float(alone[column]), abs=2e-4), column

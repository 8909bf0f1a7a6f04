"""`compare` on a few tiny pictures: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from vggtransfer.cli import main
from vggtransfer.comparison.command import compare, resume_compare
from vggtransfer.errors import OptionError, TrainingError, WeightsError
from vggtransfer.training.interruption import TrainingInterrupted

ARCHS = "lenet5,vgg16_bn_x0_25,resnet18"
TINY = {
    "archs": ARCHS,
    "epochs": 2,
    "batch_size": 8,
    "train_limit": 16,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
    "seed": 3,
}


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Two colours: 12 training and 5 test pictures of each."""
    root = tmp_path_factory.mktemp("colours")
    noise = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 5)):
        for position, colour in enumerate(("blue", "red")):
            (root / split / colour).mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 60, (32, 32, 3))
                pixels[..., 2 - 2 * position] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / colour / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def finished(colours, tmp_path_factory):
    """A comparison of three networks that nothing interrupted."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGGTRANSFER_CACHE", str(cache))
        return compare(colours, **TINY, out=tmp_path_factory.mktemp("finished") / "run")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_table_has_every_network_and_its_numbers(finished):
    rows = {row["network"]: row for row in rows_of(finished.run / "comparison.csv")}
    assert list(rows) == ARCHS.split(",")
    # With 2 classes and RGB: 61,706 + 2 * 6 * 25 - 8 * 85; 922,896 + 129 * 2; 11,689,512 - 513 * 998.
    assert [row["parameters"] for row in rows.values()] == ["61326", "923154", "11177538"]
    # C1 reads three colours; conv1_1 to conv5_3 at a quarter of the width, and 128 * 2 for the head.
    assert rows["lenet5"]["macs"] == str(416_520 + 2 * 6 * 25 * 28**2 - 8 * 84)
    assert rows["vgg16_bn_x0_25"]["macs"] == str(975_421_440 // 49 + 256)
    for result in finished.networks:
        row = rows[result.arch]
        metrics = rows_of(finished.run / result.arch / "metrics.csv")
        assert row["test_accuracy"] == metrics[-1]["val_accuracy"]
        assert row["train_accuracy"] == metrics[-1]["train_accuracy"]
        assert (row["outcome"], row["epochs"]) == ("trained", "2")
        assert float(row["images_per_second"]) > 0
        assert len(result.history) == 2
    assert finished.networks[0].gradient_clip == 1.0
    assert finished.networks[1].gradient_clip is None


def test_every_epoch_of_every_network_is_written(finished):
    rows = rows_of(finished.run / "epochs.csv")
    assert [(row["network"], row["epoch"]) for row in rows] == [(a, e) for a in ARCHS.split(",") for e in "12"]
    content = json.loads((finished.run / "comparison.json").read_text())
    assert [row["test_accuracy"] for row in content["epochs"]] == [float(row["test_accuracy"]) for row in rows]
    assert [row["parameters"] for row in content["published"]] == [61_706, 922_896, 11_689_512]


def test_markdown_says_what_was_done(finished):
    text = (finished.run / "comparison.md").read_text()
    assert text == finished.table
    assert "16 of 24 training and 10 test pictures of 2 classes; 2 epochs, from scratch" in text
    assert "no epoch was chosen by it" in text
    assert "resnet18: torchvision's, made for 224 pixels" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    with Image.open(finished.run / "comparison.png") as picture:
        assert picture.size[0] > 1000


def test_finished_networks_leave_weights_but_no_checkpoint(finished):
    for result in finished.networks:
        files = {path.name for path in (finished.run / result.arch).iterdir()}
        assert files == {"metrics.csv", "model.safetensors", "result.json"}
    weights = load_file(finished.run / "resnet18" / "model.safetensors")
    torchvision.models.resnet18(num_classes=2).load_state_dict(weights)


def test_vgg_of_a_comparison_serves_the_other_commands(finished, colours, tmp_path):
    from vggtransfer.classification.evaluation import evaluate

    result = evaluate(
        colours, model=finished.run / "vgg16_bn_x0_25", device="cpu", precision="fp32", workers=0, out=tmp_path / "out"
    )
    assert result.scores.top1_accuracy == pytest.approx(finished.networks[1].test_accuracy)


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_stopping_and_resuming_changes_nothing(colours, finished, tmp_path, monkeypatch, capsys):
    from vggtransfer.training.learner import Learner

    step, steps = Learner.step, 0

    def interrupted(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 7:  # lenet5 takes 4
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Learner, "step", interrupted)
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=f"vggtransfer compare --resume {run}$") as stopped:
        compare(colours, **TINY, out=run)
    assert stopped.value.exit_code == 130
    assert (run / "lenet5" / "result.json").is_file()
    assert (run / "vgg16_bn_x0_25" / "checkpoint" / "last.pt").is_file()
    assert [row["network"] for row in rows_of(run / "comparison.csv")] == ["lenet5"]
    steps = 1000
    assert main(["compare", "--resume", str(run)]) == 0
    assert steps - 1000 == 12 - 8  # the signal was acted on after the eighth step of twelve
    for arch in ARCHS.split(","):
        assert same_weights(run / arch, finished.run / arch)
    timed = {"seconds", "images_per_second"}
    kept = [
        [{key: value for key, value in row.items() if key not in timed} for row in rows_of(path / "epochs.csv")]
        for path in (run, finished.run)
    ]
    assert kept[0] == kept[1]


def test_networks_can_be_added_but_nothing_else_changed(colours, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    before = (run / "resnet18" / "result.json").read_text()
    result = resume_compare(run, {"archs": "resnet18,vgg11"})
    assert [network.arch for network in result.networks] == ["resnet18", "vgg11"]
    assert (run / "resnet18" / "result.json").read_text() == before
    with pytest.raises(
        OptionError, match=r"--epochs cannot be changed in a run that goes on; only data, archs, workers"
    ):
        resume_compare(run, {"epochs": 3})
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "more.png")
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    (data / "test" / "blue" / "more.png").write_bytes((tmp_path / "more.png").read_bytes())
    with pytest.raises(TrainingError, match="the set of pictures has changed since lenet5 was trained"):
        resume_compare(run, {"data": data, "archs": "lenet5"})


def test_a_network_that_diverges_is_told_and_the_others_go_on(colours, tmp_path, capsys):
    changes = {"archs": "vgg11,lenet5", "lr": 1e6, "gradient_clip": 0.0, "warmup_epochs": 0.0, "epochs": 3}
    result = compare(colours, **{**TINY, **changes}, out=tmp_path / "run")
    first, second = result.networks
    assert first.diverged.startswith("epoch ")
    assert (first.test_accuracy, first.train_accuracy) == (None, None)
    assert not second.diverged
    assert second.test_accuracy is not None
    rows = rows_of(tmp_path / "run" / "comparison.csv")
    assert rows[0]["outcome"] == f"diverged in {first.diverged}"
    assert "| vgg11 | 32 | 9.22 M | 152.8 M | diverged | diverged |" in result.table
    assert f"vgg11 diverged in {first.diverged}" in capsys.readouterr().out
    content = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert [row["network"] for row in content["networks"]] == ["vgg11", "lenet5"]
    again = resume_compare(tmp_path / "run", {})
    assert again.networks[0] == first


def test_a_network_that_learns_nothing_is_told(colours, tmp_path):
    result = compare(colours, **{**TINY, "archs": "vgg11", "lr": 0.0, "epochs": 1}, out=tmp_path / "run")
    assert "vgg11 learnt nothing: its training loss, 0.69" in result.table
    assert "ln 2 = 0.6931" in result.table
    assert rows_of(tmp_path / "run" / "comparison.csv")[0]["outcome"] == "learnt nothing"


def test_all_networks_see_the_same_pictures_in_the_same_order(colours, tmp_path, monkeypatch):
    from vggtransfer.classification.objective import ClassificationObjective

    training, seen = ClassificationObjective.training, {}

    def recorded(self, model, images, targets):
        seen.setdefault(type(model).__name__, []).append((images.clone(), targets.clone()))
        return training(self, model, images, targets)

    monkeypatch.setattr(ClassificationObjective, "training", recorded)
    compare(colours, **{**TINY, "archs": "lenet5,vgg16_bn_x0_25"}, out=tmp_path / "run")
    first, second = seen["WholeNetwork"], seen["VGGClassifier"]
    assert len(first) == len(second) == 4
    for (images, targets), (others, labels) in zip(first, second, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(targets, labels)
    assert not torch.equal(first[0][0], first[2][0])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"archs": "vgg16,resnet81"}, OptionError, r"unknown network 'resnet81' \(did you mean 'resnet18'\?\)"),
        ({"archs": "lenet5,lenet5"}, OptionError, "lenet5 is named twice"),
        ({"archs": " , "}, OptionError, "names no network"),
        ({"weights": "default"}, WeightsError, "no pretrained weights of lenet5"),
        ({"weights": "default", "archs": "vgg11_lrn"}, WeightsError, "no published weights of vgg11_lrn"),
        (
            {"weights": "default", "archs": "alexnet", "initialisation": "glorot"},
            OptionError,
            "--initialisation glorot",
        ),
        ({"train_limit": 1}, OptionError, "--train-limit 1"),
        ({"batch_size": 1}, OptionError, "--batch-size 1"),
        ({"epochs": 0}, OptionError, "--epochs 0"),
        ({"image_size": 16}, OptionError, "--image-size 16"),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(colours, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        compare(colours, **{**TINY, **changes}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_data_is_one_line(capsys):
    assert main(["compare", "--archs", "lenet5"]) == 2
    assert capsys.readouterr().err.startswith("error: missing --data")


def test_without_network_pretrained_weights_are_one_error(colours, tmp_path, monkeypatch):
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("VGGTRANSFER_TORCHVISION_URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(WeightsError, match=r"cannot download .*resnet18-f37072fd\.pth"):
        compare(colours, **{**TINY, "archs": "resnet18", "weights": "default"}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

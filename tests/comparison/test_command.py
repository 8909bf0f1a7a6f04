"""`compare` on a few tiny pictures: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sys
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
from vggtransfer.recipe_files import read_recipe
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
    first = text.partition("\n")[0]
    for words in ("initialisation he", "head linear", "weight decay 0.0005", "label smoothing 0.1"):
        assert words in first
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


def interrupt_at(wanted, monkeypatch):
    """Has Ctrl-C pressed in the step with this number, counted from 1 over all networks; returns the count."""
    from vggtransfer.training.learner import Learner

    step, steps = Learner.step, [0]

    def interrupted(self, *args, **kwargs):
        steps[0] += 1
        if steps[0] == wanted:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Learner, "step", interrupted)
    return steps


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.fixture
def other_pictures(colours, tmp_path):
    """The same and one more."""
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    Image.new("RGB", (32, 32), "blue").save(data / "test" / "blue" / "more.png")
    return data


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_stopping_and_resuming_changes_nothing(colours, finished, tmp_path, monkeypatch, capsys):
    steps = interrupt_at(7, monkeypatch)  # lenet5 takes 4
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=f"vggtransfer compare --resume {run}$") as stopped:
        compare(colours, **TINY, out=run)
    assert stopped.value.exit_code == 130
    assert (run / "lenet5" / "result.json").is_file()
    assert (run / "vgg16_bn_x0_25" / "checkpoint" / "last.pt").is_file()
    assert [row["network"] for row in rows_of(run / "comparison.csv")] == ["lenet5"]
    steps[0] = 1000
    assert main(["compare", "--resume", str(run)]) == 0
    assert steps[0] - 1000 == 12 - 8  # the signal was acted on after the eighth step of twelve
    for arch in ARCHS.split(","):
        assert same_weights(run / arch, finished.run / arch)
    timed = {"seconds", "images_per_second"}
    kept = [
        [{key: value for key, value in row.items() if key not in timed} for row in rows_of(path / "epochs.csv")]
        for path in (run, finished.run)
    ]
    assert kept[0] == kept[1]
    memory = [
        {row["network"]: row["peak_memory_mib"] for row in rows_of(path / "comparison.csv")}
        for path in (run, finished.run)
    ]
    assert memory[0]["vgg16_bn_x0_25"] == ""  # nobody knows the peak before the stop
    for arch in ("lenet5", "resnet18"):
        assert bool(memory[0][arch]) == bool(memory[1][arch])
    note = "- vgg16_bn_x0_25: stopped and resumed on the way, so the peak of memory is not known."
    assert note in (run / "comparison.md").read_text()
    assert "resumed" not in finished.table


def test_networks_can_be_added_but_nothing_else_changed(finished, other_pictures, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    before = (run / "resnet18" / "result.json").read_text()
    result = resume_compare(run, {"archs": "resnet18,vgg11"})
    assert [network.arch for network in result.networks] == [*ARCHS.split(","), "vgg11"]
    assert [row["network"] for row in rows_of(run / "comparison.csv")] == [*ARCHS.split(","), "vgg11"]
    assert read_recipe(run / "recipe.yaml")["archs"] == f"{ARCHS},vgg11"
    assert (run / "resnet18" / "result.json").read_text() == before
    with pytest.raises(
        OptionError, match=r"--epochs cannot be changed in a run that goes on; only data, archs, workers"
    ):
        resume_compare(run, {"epochs": 3})
    kept = contents(run)
    assert {"recipe.yaml", "pictures.csv", "environment.json"} <= kept.keys()
    with pytest.raises(TrainingError, match="the set of pictures has changed since the training of lenet5 began"):
        resume_compare(run, {"data": other_pictures, "archs": "lenet5"})
    assert contents(run) == kept


def test_a_network_half_trained_is_not_resumed_on_other_pictures(colours, other_pictures, tmp_path, monkeypatch):
    run = tmp_path / "run"
    interrupt_at(2, monkeypatch)
    with pytest.raises(TrainingInterrupted):
        compare(colours, **{**TINY, "archs": "lenet5"}, out=run)
    kept = contents(run)
    assert "lenet5/checkpoint/last.pt" in kept
    assert "lenet5/result.json" not in kept
    with pytest.raises(TrainingError, match="the set of pictures has changed since the training of lenet5 began"):
        resume_compare(run, {"data": other_pictures})
    assert contents(run) == kept


@pytest.mark.parametrize(("option", "value"), [("device", "auto"), ("channels_last", False)])
def test_what_a_run_cannot_change_its_networks_cannot_differ_in(colours, finished, tmp_path, option, value):
    """Options that the command refuses to change are also part of what each network remembers."""
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    with pytest.raises(OptionError, match=f"--{option.replace('_', '-')} cannot be changed"):
        resume_compare(run, {option: value})
    recipe = (run / "recipe.yaml").read_text()
    line = next(line for line in recipe.splitlines() if line.startswith(f"{option}:"))
    (run / "recipe.yaml").write_text(recipe.replace(line, f"{option}: {str(value).lower()}"))
    with pytest.raises(TrainingError, match="the recipe has changed since the training of lenet5 began"):
        resume_compare(run, {})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_names_of_folders_and_files_are_text(colours, tmp_path, capsys):
    name = "*cost* in $5_and_$6\x1b[31m \u65e5\u672c"
    data, augmentation = tmp_path / name, tmp_path / "flip\t$1$.yaml"
    shutil.copytree(colours, data)
    augmentation.write_text("- HorizontalFlip\n")
    run = tmp_path / "a run"
    result = compare(data, **{**TINY, "archs": "lenet5", "epochs": 1, "augmentation": str(augmentation)}, out=run)
    assert "\x1b" not in result.table
    assert "\\*cost\\* in \\$5_and_\\$6\\\\x1b\\[31m" in result.table
    assert "augmentation flip\\\\t\\$1\\$.yaml" in result.table
    assert f"--config '{run}/recipe.yaml'` trains the same again" in result.table
    printed = capsys.readouterr().out
    assert "\x1b[31m" not in printed
    assert "*cost* in $5_and_$6\\x1b[31m \u65e5\u672c, 16 of 24" in printed
    content = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    assert content["setting"].startswith("*cost* in $5_and_$6\\x1b[31m")


def test_networks_that_cannot_follow_the_train_sizes_are_told(colours, tmp_path):
    changes = {"archs": "lenet5,vgg16_bn_x0_25", "image_size": 32, "train_size": "48 32@1", "train_limit": 8}
    result = compare(colours, **{**TINY, **changes}, out=tmp_path / "run")
    assert result.networks[0].train_sizes == ((0, 32),)
    assert result.networks[1].train_sizes == ((0, 48), (1, 32))
    assert "are not 48 32@1 where a network does not take all of these sides: lenet5 32." in result.table
    assert "train size 48 32@1" in result.table.partition("\n")[0]


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


def test_the_run_of_another_command_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "# All options of `vggtransfer finetune`, as version 0.1.0 understood them.\n"
    )
    with pytest.raises(OptionError, match=f"is a run of `finetune`; use vggtransfer finetune --resume {tmp_path}"):
        compare(resume=tmp_path)

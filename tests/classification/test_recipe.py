import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vggtransfer.classification.evaluation import evaluate
from vggtransfer.classification.model import load_classifier
from vggtransfer.classification.recipe import finetune
from vggtransfer.errors import OptionError, TrainingError
from vggtransfer.recipe_files import read_recipe
from vggtransfer.training.checkpoint import CHECKPOINT_FILE, load_checkpoint

TINY = {
    "arch": "vgg16_bn_x0_25",
    "weights": "none",
    "image_size": 32,
    "workers": 0,
    "precision": "fp32",
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Three classes that differ in hue: easy enough to be learnt in a few steps."""
    root = tmp_path_factory.mktemp("colours")
    random_numbers = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        for split, count in (("train", 16), ("val", 5)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random_numbers.integers(0, 120, (32, 32, 3))
                pixels[..., 2 - label] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint."""
    state = load_checkpoint(run)
    optimizer = {
        f"optimizer.{parameter}.{name}": value
        for parameter, values in state["optimizer"]["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }
    return {**state["model"], **optimizer, **{f"ema.{key}": value for key, value in (state["ema"] or {}).items()}}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert load_file(one / "model.safetensors").keys() == load_file(other / "model.safetensors").keys()
    for key, value in load_file(one / "model.safetensors").items():
        assert torch.equal(value, load_file(other / "model.safetensors")[key]), key


def test_learns_and_writes_the_run_directory(colours, tmp_path, capsys):
    run = tmp_path / "run"
    result = finetune(
        colours, **TINY, unfreeze="all", epochs=4, batch_size=16, lr=3e-3, dropout=0.0, augmentation="light", out=run
    )
    assert result.best_accuracy == 1.0
    rows = rows_of(run / "metrics.csv")
    assert len(rows) == 4
    assert float(rows[result.best_epoch - 1]["val_accuracy"]) == 1.0
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    for name in ("curves.png", "confusion.png"):
        with Image.open(run / name) as figure:
            assert figure.size[0] > 300
    environment = json.loads((run / "environment.json").read_text())[0]
    assert torch.__version__.startswith(environment["packages"]["torch"])
    assert len(rows_of(run / "pictures.csv")) == 63
    assert read_recipe(run / "recipe.yaml")["epochs"] == 4
    model = load_classifier(run)
    assert model.task.classes == ("blue", "green", "red")
    noise = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 120 / 255
    noise[:, 0] += 120 / 255
    assert model(noise).argmax(dim=1).tolist() == [2] * 8
    printed = capsys.readouterr().out
    for words in (
        "3 classes, 48 training and 15 validation",
        "BatchNorm",
        "best validation accuracy 100.00%",
        f"vggtransfer evaluate --model {run}",
    ):
        assert words in printed


def test_frozen_blocks_keep_their_bytes(colours, tmp_path):
    start = finetune(colours, **TINY, unfreeze="none", epochs=1, out=tmp_path / "start")
    run = finetune(
        colours, **{**TINY, "weights": str(start.run)}, unfreeze="block5", epochs=2, batch_size=16, out=tmp_path / "run"
    ).run
    before, after = load_file(start.model), load_file(run / "model.safetensors")
    changed = {key.split(".")[2] for key in before if "trunk" in key and not torch.equal(before[key], after[key])}
    assert changed == {f"{kind}5_{index}" for kind in ("conv", "bn") for index in (1, 2, 3)}


def test_schedule_unfreezes_when_it_says(colours, tmp_path):
    result = finetune(
        colours, **TINY, unfreeze="none block5@1 all@2", epochs=3, batch_size=16, layer_decay=0.5, out=tmp_path / "run"
    )
    assert [row["unfreeze"] for row in result.history] == ["none", "block5", "all"]
    groups = {group["name"]: group["base_lr"] for group in load_checkpoint(result.run)["optimizer"]["param_groups"]}
    assert groups["head"] == groups["block5"] == 1e-3
    assert groups["block4"] == 5e-4


REFINED = {
    **TINY,
    "unfreeze": "none block5@1 all@2",
    "epochs": 3,
    "batch_size": 8,
    "mixup": 0.2,
    "cutmix": 1.0,
    "ema": 0.9,
    "sampling": "balanced",
    "class_weights": "balanced",
    "gradient_clip": 1.0,
    "accumulate": 2,
    "augmentation": "strong",
    "head": "mlp",
}


def test_training_pictures_grow_and_validation_keeps_its_size(colours, tmp_path, monkeypatch, capsys):
    from vggtransfer.classification.model import VGGClassifier

    seen, forward = [], VGGClassifier.forward

    def watch(self, images):
        seen.append((self.training, images.shape[-1]))
        return forward(self, images)

    monkeypatch.setattr(VGGClassifier, "forward", watch)
    run = tmp_path / "run"
    options = {**TINY, "image_size": 40, "batch_size": 24, "optimizer": "muon", "unfreeze": "all"}
    finetune(colours, **options, train_size="32 36@1 40@2 48@9", epochs=3, out=run)
    printed = capsys.readouterr().out
    assert "32 pixels, then 36 pixels from epoch 2, 40 pixels from epoch 3, 48 pixels from epoch 10" in printed
    assert "warning: 48 pixels will not be reached: the run ends after epoch 3" in printed
    trained = [side for training, side in seen if training]
    assert trained == [32, 32, 36, 36, 40, 40]
    assert {side for training, side in seen if not training} == {40}
    assert load_classifier(run).task.image_size == 40


@pytest.fixture(scope="module")
def uninterrupted(colours, tmp_path_factory):
    return finetune(colours, **REFINED, out=tmp_path_factory.mktemp("runs") / "whole").run


@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_by_signal_and_resuming_changes_nothing(colours, tmp_path, uninterrupted, monkeypatch, workers):
    from vggtransfer.training.interruption import TrainingInterrupted
    from vggtransfer.training.loop import Fit

    run = tmp_path / "run"
    steps = 0
    original = Fit._step

    def interrupting(self, *arguments):
        nonlocal steps
        steps += 1
        if steps in (1, 4, 7):  # acted on after the following step, in the middle of an epoch of three
            os.kill(os.getpid(), signal.SIGTERM if steps == 4 else signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(Fit, "_step", interrupting)
    settings = {**REFINED, "workers": workers, "out": run, "data": colours}
    for exit_code in (130, 143, 130):
        with pytest.raises(TrainingInterrupted, match=f"--resume {run}") as stopped:
            finetune(**settings)
        assert stopped.value.exit_code == exit_code
        settings = {"resume": run}
    finetune(resume=run)
    assert_same_weights(run, uninterrupted)
    assert len(rows_of(run / "metrics.csv")) == 3


def test_signal_during_validation_is_heeded_and_a_second_one_does_no_harm(
    colours, tmp_path, uninterrupted, monkeypatch
):
    from vggtransfer.training.interruption import TrainingInterrupted
    from vggtransfer.training.loop import Fit

    original = Fit._validate

    def interrupting(self, request):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, request)

    monkeypatch.setattr(Fit, "_validate", interrupting)
    with pytest.raises(TrainingInterrupted, match="after 3 of 3 steps"):
        finetune(colours, **REFINED, out=tmp_path / "run")
    monkeypatch.undo()
    finetune(resume=tmp_path / "run")
    assert_same_weights(tmp_path / "run", uninterrupted)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vggtransfer", "finetune", *(str(argument) for argument in arguments)]


def options(settings: dict[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_kills_at_random_moments_change_nothing(colours, tmp_path, uninterrupted):
    """Each attempt gets past its predecessor's checkpoint, then dies a random moment later; the last one finishes."""
    run = tmp_path / "run"
    recipe, checkpoint = run / "recipe.yaml", run / CHECKPOINT_FILE
    moments = random.Random(0)
    arguments = ["--data", colours, "--out", run, "--checkpoint-minutes", "0.0001", *options({**REFINED, "workers": 1})]

    def saved() -> int:
        return checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0

    for kills in range(5):
        before = saved()
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while kills < 4 and process.poll() is None and saved() == before and (kills or not recipe.is_file()):
            time.sleep(0.005)
        try:
            _, errors = process.communicate(timeout=moments.uniform(0, 0.3) if kills < 4 else 120)
            assert process.returncode == 0, errors
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        arguments = ["--resume", run]
    assert process.returncode == 0
    assert_same_weights(run, uninterrupted)


def two_processes(*arguments: object, stop_when: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs finetune under torchrun, and sends it SIGTERM as soon as a file is there."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words = [*launcher, "vggtransfer", "finetune", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while stop_when is not None and process.poll() is None and not stop_when.is_file():
            time.sleep(0.005)
        if stop_when is not None:
            process.terminate()
        output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def test_two_processes_stop_resume_and_save_what_they_validate(colours, tmp_path):
    """The buffers of BatchNorm, the moving average and the stages survive SIGTERM to torchrun, in all processes."""
    settings = options({**REFINED, "unfreeze": "none all@1", "epochs": 4, "workers": 1, "device": "auto"})
    whole, run = tmp_path / "whole", tmp_path / "run"
    finished = two_processes("--data", colours, "--out", whole, *settings)
    assert finished.returncode == 0, finished.stderr[-3000:]
    best = load_checkpoint(whole)["progress"]["best_epoch"]
    scores = evaluate(colours, model=whole, split="val", precision="fp32", workers=0).scores
    validated = float(rows_of(whole / "metrics.csv")[best]["val_loss"])
    assert scores.negative_log_likelihood == pytest.approx(validated, rel=1e-5)
    stopped = two_processes("--data", colours, "--out", run, *settings, stop_when=run / "metrics.csv")
    assert stopped.returncode != 0
    assert "Go on with: vggtransfer finetune --resume" in stopped.stderr
    assert 1 <= load_checkpoint(run)["progress"]["epoch"] < 4
    assert two_processes("--resume", run).returncode == 0
    assert_same_weights(run, whole)


def test_mistakes_under_torchrun_are_told_once(tmp_path):
    finished = two_processes("--data", tmp_path, *options(TINY))
    assert finished.returncode != 0
    assert finished.stderr.count("error: ") == 1
    assert "Connection closed" not in finished.stderr


def test_two_processes_train_as_one(colours, tmp_path, monkeypatch):
    """Without BatchNorm in training mode, dropout and remainders, two processes compute what one does.

    They share the maps of the frozen layers, which the one computes in every epoch.
    """
    settings = {
        **TINY,
        "arch": "vgg11",
        "unfreeze": "block5",
        "augmentation": "mirror",
        "epochs": 2,
        "batch_size": 16,
        "dropout": 0.0,
        "optimizer": "sgd",
        "lr": 0.05,
    }
    finetune(colours, **settings, cache="off", out=tmp_path / "one")
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    finished = two_processes("--data", colours, "--out", tmp_path / "two", *options({**settings, "cache": "disk"}))
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("best validation accuracy") == 1
    assert finished.stdout.count("cache: on disk") == 1
    one, two = (rows_of(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    for alone, together in zip(one, two, strict=True):
        for column in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert float(together[column]) == pytest.approx(float(alone[column]), abs=2e-4), column
    assert json.loads((tmp_path / "two" / "environment.json").read_text())[0]["processes"] == 2
    segments = list((tmp_path / "cache" / "maps").glob("*/*.keys"))
    assert sum(path.stat().st_size for path in segments) == 34 * (2 * 48 + 15)
    assert len({path.name.partition("-")[0] for path in segments}) == 2


def test_loss_that_is_not_finite_stops_before_the_step(colours, tmp_path, monkeypatch):
    from vggtransfer.classification.objective import ClassificationObjective

    run = tmp_path / "run"
    original, calls = ClassificationObjective.training, 0

    def breaking(self, model, images, targets):
        nonlocal calls
        calls += 1
        loss, right = original(self, model, images, targets)
        return (loss * torch.nan if calls == 5 else loss), right

    monkeypatch.setattr(ClassificationObjective, "training", breaking)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 2, step 2.*last\.pt.*Lower --lr"):
        finetune(colours, **TINY, epochs=3, batch_size=16, out=run)
    assert load_checkpoint(run)["progress"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in load_checkpoint(run)["model"].values())
    monkeypatch.setattr(ClassificationObjective, "training", original)
    assert len(finetune(resume=run).history) == 3


def test_diverging_rate_is_reported_and_can_be_lowered(colours, tmp_path):
    with pytest.raises(TrainingError, match="Lower --lr"):
        finetune(
            colours,
            **{**TINY, "arch": "vgg11"},
            unfreeze="all",
            optimizer="sgd",
            lr=1e3,
            epochs=5,
            batch_size=8,
            warmup_epochs=0,
            out=tmp_path / "run",
        )
    assert len(finetune(resume=tmp_path / "run", lr=1e-4, epochs=1).history) == 1


def test_early_stopping(colours, tmp_path):
    result = finetune(colours, **TINY, unfreeze="none", lr=0.0, epochs=9, patience=2, out=tmp_path / "run")
    assert len(result.history) == 3
    assert result.best_epoch == 1


def test_resume_takes_more_epochs_and_refuses_another_recipe(colours, tmp_path):
    run = finetune(colours, **TINY, epochs=1, out=tmp_path / "run").run
    assert len(finetune(resume=run, epochs=2).history) == 2
    with pytest.raises(OptionError, match="--batch-size cannot be changed"):
        finetune(resume=run, batch_size=8)
    assert len(finetune(resume=str(run), lr=1e-4, epochs=3).history) == 3
    assert load_checkpoint(run)["optimizer"]["param_groups"][-1]["base_lr"] == 1e-4
    with pytest.raises(OptionError, match=r"no recipe\.yaml"):
        finetune(resume=tmp_path)


def test_resume_refuses_other_pictures(colours, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(colours, data)
    run = finetune(data, **TINY, epochs=1, out=tmp_path / "run").run
    (data / "train" / "red" / "0.png").unlink()
    with pytest.raises(TrainingError, match="set of pictures has changed"):
        finetune(resume=run, epochs=2)


def test_bad_pictures_are_listed_and_left_out(colours, tmp_path, capsys):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(colours, data)
    bad = data / "train" / "red" / "text.jpg"
    bad.write_text("this is no picture")
    run = finetune(data, **TINY, epochs=1, out=tmp_path / "run").run
    assert [row["path"] for row in rows_of(run / "bad_images.csv")] == [str(bad)]
    assert "1 unreadable" in capsys.readouterr().out
    with pytest.raises(Exception, match=r"text\.jpg"):
        finetune(data, **TINY, epochs=1, on_bad_image="stop", out=tmp_path / "other")


def test_vgg_head_takes_its_pretrained_layers(colours, tmp_path, monkeypatch):
    from vggtransfer.classification import model as model_module
    from vggtransfer.encoder import vgg, weights
    from vggtransfer.encoder.vgg import VGGEncoder

    donor = VGGEncoder("vgg16_bn_x0_25", weights=None)
    fc = {
        "fc6.weight": torch.full((4096, 6272), 1e-3),
        "fc6.bias": torch.zeros(4096),
        "fc7.weight": torch.full((4096, 4096), 1e-3),
        "fc7.bias": torch.ones(4096),
    }

    def load(arch, source, *, classifier=False, **_):
        assert source == "torchvision"
        trunk = donor.trunk.state_dict()
        return weights.LoadedWeights(
            architecture=arch,
            layout="torchvision",
            preprocessing="torchvision",
            trunk=trunk,
            classifier=fc if classifier else {},
            mean=(0.5,) * 3,
            std=(0.2,) * 3,
            origin="a test",
            digest="0" * 64,
        )

    monkeypatch.setattr(vgg, "load_weights", load)
    monkeypatch.setattr(model_module, "load_weights", load)
    run = finetune(
        colours,
        **{**TINY, "weights": "torchvision"},
        unfreeze="none",
        head="vgg",
        epochs=1,
        lr=0.0,
        batch_size=24,
        out=tmp_path / "run",
    ).run
    model = load_classifier(run)
    assert torch.equal(model.head.fc6.weight, fc["fc6.weight"])
    assert torch.equal(model.head.fc7.bias, fc["fc7.bias"])
    assert model.head.fc8.weight.shape == (3, 4096)
    assert model.encoder.mean.flatten().tolist() == [0.5] * 3
    assert model.encoder.origin == "a test"


def test_options_typed_with_resume_count_even_if_they_are_defaults(colours, tmp_path, capsys):
    from vggtransfer.cli import main

    run = finetune(colours, **TINY, epochs=16, patience=1, lr=0.0, out=tmp_path / "run").run
    assert main(["finetune", "--resume", str(run), "--batch-size", "32", "--epochs", "15"]) == 0
    assert read_recipe(run / "recipe.yaml")["epochs"] == 15
    assert main(["finetune", "--resume", str(run), "--dropout", "0.25"]) == 2
    assert "--dropout cannot be changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "adam"}, "optimizer='adam'.*'adamw'"),
        ({"sampling": "balance"}, "sampling='balance'"),
        ({"epochs": "three"}, "epochs='three'"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"epochs": 0}, "--epochs 0 is not possible: use 1 to"),
        ({"image_size": 16}, "--image-size 16"),
        ({"train_size": "32 48"}, "train_size='32 48': stages must begin at epoch 0 and rise"),
        ({"train_size": "32 big@2"}, "train_size='32 big@2': big is not a side"),
        ({"train_size": 16}, "train_size='16': 16 is not a side in pixels from 32"),
        ({"unfreeze": "block6"}, "block6"),
        ({"unfreeze": "none block6@1"}, "block6"),
        ({"augmentation": "strongest"}, "strongest"),
        ({"lr": -1.0}, "--lr"),
        ({"weights": "nowhere.pth"}, "nowhere.pth"),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(colours, tmp_path, changes, words):
    with pytest.raises(Exception, match=words) as caught:
        finetune(colours, **{**TINY, **changes}, out=tmp_path / "run")
    from vggtransfer.errors import VGGTransferError

    assert isinstance(caught.value, VGGTransferError)
    assert not (tmp_path / "run").exists()


def test_missing_data_is_one_line():
    with pytest.raises(OptionError, match="missing --data"):
        finetune()


def test_the_demo_checks_its_options_before_it_draws(tmp_path):
    from vggtransfer.classification.demo import demo

    with pytest.raises(OptionError, match="--epochs 0 is not possible"):
        demo(out=tmp_path / "demo", epochs=0)
    assert not (tmp_path / "demo").exists()

"""What the refinements of the training loop do to the weights, seen through `finetune` on a few tiny pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vggtransfer.classification.recipe import finetune
from vggtransfer.training.checkpoint import load_checkpoint

PLAIN = {
    "arch": "vgg11",
    "weights": "none",
    "unfreeze": "block5",
    "image_size": 32,
    "epochs": 1,
    "batch_size": 16,
    "optimizer": "sgd",
    "lr": 0.1,
    "warmup_epochs": 0.0,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "augmentation": "none",
    "workers": 0,
    "precision": "fp32",
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for label in ("dark", "light"):
        (root / label).mkdir()
        for number in range(20):
            pixels = noise.integers(0, 128, (32, 32, 3)) + (127 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number}.png")
    return root


def trained(pictures, out, **changes):
    """The last checkpoint of a run of two steps."""
    run = finetune(pictures, **{**PLAIN, **changes}, out=out).run
    return load_checkpoint(run)


def largest_difference(one, other):
    return max(float((one[key] - other[key]).abs().max()) for key in one if one[key].is_floating_point())


def test_accumulated_passes_equal_a_larger_batch(pictures, tmp_path):
    whole = trained(pictures, tmp_path / "whole")["model"]
    halves = trained(pictures, tmp_path / "halves", batch_size=8, accumulate=2)["model"]
    start = trained(pictures, tmp_path / "start", lr=0.0)["model"]
    moved = largest_difference(whole, start)
    assert moved > 1e-3
    assert largest_difference(whole, halves) < 1e-3 * moved


def test_gradient_clipping_bounds_the_step(pictures, tmp_path):
    start = trained(pictures, tmp_path / "start", lr=0.0)["model"]
    clipped = trained(pictures, tmp_path / "clipped", lr=1.0, backbone_lr=1.0, gradient_clip=1e-3)["model"]
    length = sum(float((clipped[key] - start[key]).square().sum()) for key in start) ** 0.5
    # Two steps along gradients of length 1e-3, the second one at half the rate.
    assert 0.5e-3 < length <= 1.5e-3 * 1.001


def test_moving_average_is_what_is_saved(pictures, tmp_path):
    plain = trained(pictures, tmp_path / "plain", epochs=4)
    averaged = trained(pictures, tmp_path / "averaged", epochs=4, ema=0.9)
    assert largest_difference(plain["model"], averaged["model"]) == 0
    assert largest_difference(averaged["model"], averaged["ema"]) > 0
    best = averaged["progress"]["best_epoch"]
    saved = load_file(tmp_path / "averaged" / "model.safetensors")
    assert (largest_difference(averaged["ema"], saved) == 0) == (best == 3)


def test_weight_decay_shrinks_weights_but_not_biases(pictures, tmp_path):
    start = trained(pictures, tmp_path / "start", lr=0.0)["model"]
    plain = trained(pictures, tmp_path / "plain")["model"]
    decayed = trained(pictures, tmp_path / "decayed", weight_decay=0.5)["model"]
    weight, frozen = "encoder.trunk.conv5_1.weight", "encoder.trunk.conv4_1.weight"
    assert decayed[weight].norm() < 0.95 * plain[weight].norm()
    assert torch.equal(decayed[frozen], start[frozen])


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"class_weights": "balanced", "sampling": "balanced"}])
def test_other_settings_train(pictures, tmp_path, changes):
    start = trained(pictures, tmp_path / "start", lr=0.0)["model"]
    assert largest_difference(trained(pictures, tmp_path / "run", **changes)["model"], start) > 1e-3


def test_tensorboard_gets_one_event_file(pictures, tmp_path):
    trained(pictures, tmp_path / "run", tensorboard=True)
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"val_accuracy" in events.read_bytes()


@pytest.mark.slow
def test_compiled_model_trains_like_a_plain_one(pictures, tmp_path):
    plain = trained(pictures, tmp_path / "plain")["model"]
    compiled = trained(pictures, tmp_path / "compiled", compile=True)["model"]
    assert largest_difference(plain, compiled) < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu_trains_like_the_cpu(pictures, tmp_path, precision):
    cpu = trained(pictures, tmp_path / "cpu")["model"]
    gpu = trained(pictures, tmp_path / "gpu", device="cuda", precision=precision)["model"]
    start = trained(pictures, tmp_path / "start", lr=0.0)["model"]
    assert largest_difference(cpu, gpu) < (0.01 if precision == "fp32" else 0.3) * largest_difference(cpu, start)

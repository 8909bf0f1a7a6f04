"""`vggtransfer stylize`: painting, training a network, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vggtransfer.cli import main
from vggtransfer.data.decode import decode_image
from vggtransfer.data.synthetic import draw_flower
from vggtransfer.errors import DataError, OptionError, WeightsError
from vggtransfer.perceptual.colour_matching import luma, match_colours, match_luma, with_luma
from vggtransfer.perceptual.picture_crops import RandomSquare
from vggtransfer.perceptual.pictures import resized
from vggtransfer.perceptual.style_network import StyleNetwork, load_style_network
from vggtransfer.perceptual.style_objective import StyleObjective, StyleWeights
from vggtransfer.perceptual.style_transfer import pyramid
from vggtransfer.perceptual.stylize import stylize
from vggtransfer.perceptual.trunk import build_trunk
from vggtransfer.recipe_files import read_recipe
from vggtransfer.training.interruption import TrainingInterrupted


@pytest.fixture
def pictures(tmp_path):
    """A flower to paint and a strongly coloured pattern."""
    stripes = np.zeros((64, 80, 3), np.uint8)
    stripes[:, ::8], stripes[::8] = (220, 40, 30), (30, 60, 200)
    for name, picture in (("flower", draw_flower("daisy", size=72, seed=2)[0]), ("stripes", stripes)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    return tmp_path / "flower.png", tmp_path / "stripes.png"


def test_colours_are_matched():
    generator = torch.Generator().manual_seed(0)
    picture = 0.5 + 0.05 * torch.randn(1, 3, 40, 40, generator=generator)
    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.2, 0.0, 1.0]])
    reference = 0.4 + 0.04 * torch.einsum("ij,bjhw->bihw", mixing, torch.randn(1, 3, 30, 50, generator=generator))
    matched = match_colours(picture, reference)
    for values, wanted in ((matched, reference), (match_luma(luma(picture), luma(reference)), luma(reference))):
        pixels, targets = values[0].flatten(1), wanted[0].flatten(1)
        torch.testing.assert_close(pixels.mean(1), targets.mean(1), rtol=0, atol=1e-3)
        torch.testing.assert_close(pixels.cov(correction=0), targets.cov(correction=0), rtol=0.02, atol=1e-4)
    torch.testing.assert_close(match_colours(picture, picture), picture, rtol=0, atol=1e-5)
    grey = torch.full((1, 1, 40, 40), 0.5)
    torch.testing.assert_close(luma(with_luma(picture, grey)), grey, rtol=0, atol=1e-5)
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(match_colours(flat, reference).mean((2, 3)), reference.mean((2, 3)), rtol=0, atol=1e-3)


def test_objective_is_relative_and_by_definition():
    trunk = build_trunk("vgg16_bn_x0_25", weights="default", in_channels=3)
    objective = StyleObjective(
        trunk, content_layers=["relu2_2"], style_layers=["relu1_1", "relu3_1"], weights=StyleWeights(2, 5, 7)
    )
    x, content, style = torch.rand(3, 1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    objective.set_style(style)
    terms = objective.terms(x, objective.content_of(content))
    taps = {
        name: trunk.taps(value, ["relu1_1", "relu2_2", "relu3_1"])
        for name, value in zip("xcs", (x, content, style), strict=True)
    }

    def gram(maps):
        rows = maps[0].flatten(1).double()
        return rows @ rows.T / rows.numel()

    def relative(value, target):
        return ((value - target).square().sum() / target.square().sum()).float()

    torch.testing.assert_close(terms.content, relative(taps["x"]["relu2_2"], taps["c"]["relu2_2"]))
    errors = [relative(gram(taps["x"][name]), gram(taps["s"][name])) for name in ("relu1_1", "relu3_1")]
    torch.testing.assert_close(terms.style, torch.stack(errors).mean())
    torch.testing.assert_close(terms.smoothness, x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())
    torch.testing.assert_close(terms.total, 2 * terms.content + 5 * terms.style + 7 * terms.smoothness)
    with pytest.raises(OptionError, match="style-weight -1"):
        StyleObjective(trunk, content_layers=["relu1_1"], style_layers=["relu1_1"], weights=StyleWeights(1, -1, 1))


def test_pyramid():
    assert [(scale.long_side, scale.iterations) for scale in pyramid(512, scales=3, iterations=70)] == [
        (128, 40),
        (256, 20),
        (512, 10),
    ]
    assert [scale.long_side for scale in pyramid(200, scales=3, iterations=10)] == [200]


def test_painting_takes_the_colours_of_the_style_or_keeps_them(pictures, tmp_path):
    content, style = pictures
    options = {"size": 64, "iterations": 25, "preview_seconds": 0.0}
    painted = stylize(content, style=style, out=tmp_path / "out", **options)
    kept = stylize(content, style=style, out=tmp_path / "kept", colours="luminance", optimizer="adam", **options)
    assert painted.pictures == (tmp_path / "out" / "flower.png",)
    assert sorted(path.name for path in painted.run.iterdir()) == ["environment.json", "flower.png", "recipe.yaml"]
    assert read_recipe(painted.run / "recipe.yaml")["style"] == str(style)

    def mean_colour(path):
        return decode_image(path).mean((0, 1))

    before, wanted = mean_colour(content), mean_colour(style)
    distance = np.abs(before - wanted).max()
    assert np.abs(mean_colour(painted.pictures[0]) - wanted).max() < 0.3 * distance
    assert np.abs(mean_colour(kept.pictures[0]) - before).max() < 0.3 * distance
    assert not np.array_equal(decode_image(kept.pictures[0]), resized(decode_image(content), long_side=64))


def test_a_network_is_trained_interrupted_resumed_and_used(pictures, tmp_path, monkeypatch, capsys):
    content, style = pictures
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(7):
        Image.fromarray(draw_flower("daisy", size=70, seed=number)[0]).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    options = {"style": style, "train_size": 64, "width": 4, "epochs": 2, "batch_size": 3, "workers": 0, "lr": 3e-3}
    whole = stylize(train=folder, out=tmp_path / "whole", **options)
    names = {path.name for path in whole.run.iterdir()}
    assert {"model.safetensors", "metrics.csv", "recipe.yaml", "preview.png", "bad_images.csv", "checkpoint"} <= names
    rows = list(csv.DictReader((whole.run / "metrics.csv").read_text(encoding="utf-8").splitlines()))
    assert float(rows[1]["val_loss"]) < float(rows[0]["val_loss"])
    assert "train_style_error" in rows[0]

    # Stopped after the first epoch and resumed, it learns the same.
    from vggtransfer.perceptual import picture_training

    with monkeypatch.context() as patch:
        patch.setattr(picture_training, "_print_epoch", _interrupt)
        with pytest.raises(TrainingInterrupted):
            stylize(train=folder, out=tmp_path / "halves", **options)
    assert main(["stylize", "--resume", str(tmp_path / "halves")]) == 0
    expected, got = load_style_network(whole.run).state_dict(), load_style_network(tmp_path / "halves").state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert main(["stylize", "--resume", str(tmp_path / "halves"), "--width", "8"]) == 2
    assert "--width cannot be changed" in capsys.readouterr().err

    result = stylize(content, model=whole.run, size=48, out=tmp_path / "used")
    with Image.open(result.pictures[0]) as painted:
        assert painted.size == (48, 48)
    Image.new("RGB", (200, 3)).save(folder / "thin.png")
    many = stylize(folder, model=whole.model, out=tmp_path / "many", content_weight=1.0)
    assert len(many.pictures) == 7
    warnings = capsys.readouterr().out
    assert "broken.jpg" in warnings
    assert "200x3 pixels are too few" in warnings
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("broken.jpg", "thin.png"):
        (folder / name).rename(bad / name)
    with pytest.raises(DataError, match="none of its 2 pictures"):
        stylize(bad, model=whole.run, out=tmp_path / "none")


def _interrupt(row, epochs):
    raise TrainingInterrupted("stopped", 130)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "missing --content"),
        (["--content", "FLOWER"], "missing --style"),
        (["--content", "FLOWER", "--style", "STRIPES", "--train", "FOLDER"], "in a second call"),
        (["--content", "FLOWER", "--style", "STRIPES", "--model", "FOLDER"], "leave --style out"),
        (["--content", "FOLDER", "--style", "STRIPES"], "only --model paints many"),
        (["--content", "FLOWER", "--style", "STRIPES", "--size", "9"], "--size 9 is not possible"),
        (["--content", "FLOWER", "--style", "STRIPES", "--style-layers", "relu9_1"], "relu9_1"),
        (["--content", "FLOWER", "--model", "FOLDER"], "no model.safetensors there"),
        (["--train", "FOLDER", "--style", "STRIPES"], "training needs two or more"),
        (["--content", "THIN", "--style", "STRIPES"], "at 128x1 pixels, of which the layers need 16"),
        (["--content", "FLOWER", "--style", "THIN"], "at 128x1 pixels"),
    ],
)
def test_what_cannot_be(pictures, tmp_path, capsys, options, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("RGB", (300, 3)).save(tmp_path / "thin.png")
    words = {
        "THIN": str(tmp_path / "thin.png"),
        "FLOWER": str(pictures[0]),
        "STRIPES": str(pictures[1]),
        "FOLDER": str(empty),
    }
    assert main(["stylize", *(words.get(word, word) for word in options), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_network_keeps_odd_sizes_and_gradients():
    network = StyleNetwork(width=4)
    images = torch.rand(2, 3, 37, 50)
    painted = network(images)
    assert painted.shape == images.shape
    painted.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    with pytest.raises(WeightsError, match="no model"):
        load_style_network(Path(__file__).parent)


def test_crops_depend_on_the_key_only():
    picture = draw_flower("daisy", size=90, seed=1)[0]
    crop = RandomSquare(32)
    assert crop(picture, key=5).shape == (32, 32, 3)
    assert np.array_equal(crop(picture, key=5), crop(picture, key=5))
    assert not np.array_equal(crop(picture, key=5), crop(picture, key=6))

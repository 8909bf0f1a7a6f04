"""`vggtransfer superresolve` and `superresolve-predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vggtransfer.cli import main
from vggtransfer.data.decode import decode_image
from vggtransfer.data.folders import Sample
from vggtransfer.data.synthetic import draw_flower
from vggtransfer.perceptual import picture_training
from vggtransfer.perceptual.reduced_pictures import ReducedPictures, reduced
from vggtransfer.perceptual.super_network import SuperNetwork, enlarge_in_tiles, enlarged, load_super_network
from vggtransfer.perceptual.superresolve import superresolve
from vggtransfer.training.interruption import TrainingInterrupted

OPTIONS = {"factor": 2, "width": 8, "blocks": 1, "crop": 32, "epochs": 6, "batch_size": 1, "workers": 0, "lr": 3e-3}


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(9):
        Image.fromarray(draw_flower("daisy", size=64 if number else 50, seed=number)[0]).save(folder / f"{number}.png")
    return folder


def test_pairs_are_a_square_and_its_reduction(photographs):
    samples = [Sample(photographs / "1.png", 0), Sample(photographs / "0.png", 0)]
    middle = ReducedPictures(samples, size=60, factor=2, seed=None)
    small, large, index = middle[0]
    assert index == 0
    square = decode_image(photographs / "1.png")[2:62, 2:62]
    assert np.array_equal(large.permute(1, 2, 0), square)
    assert np.array_equal(small.permute(1, 2, 0), reduced(square, 2))
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert (reduced(flat, 4) == 77).all()
    _, filled, _ = middle[1]  # 50 pixels, continued by its mirror image
    assert torch.equal(filled[:, 50:], filled[:, 40:50].flip(1))
    drawn = ReducedPictures(samples, size=32, factor=4, seed=1)
    assert torch.equal(drawn[1, 0][1], drawn[1, 0][1])
    assert not torch.equal(drawn[1, 0][1], drawn[2, 0][1])


def test_network_begins_bicubic_and_tiles_change_nothing():
    torch.manual_seed(0)
    network = SuperNetwork(factor=4, width=4, blocks=2).eval()
    images = torch.rand(1, 3, 50, 41)
    torch.testing.assert_close(network(images), enlarged(images, 4))
    torch.nn.init.normal_(network.last.weight)
    whole = network(images)
    assert not torch.allclose(whole, enlarged(images, 4), atol=0.1)
    torch.testing.assert_close(enlarge_in_tiles(network, images, tile=16), whole, rtol=1e-4, atol=1e-4)


def test_training_resuming_and_predicting(photographs, tmp_path, monkeypatch, capsys):
    whole = superresolve(photographs, out=tmp_path / "whole", val_fraction=0.2, **OPTIONS)
    scores = json.loads((whole.run / "scores.json").read_text(encoding="utf-8"))
    assert scores["pictures"] == 2
    network, bicubic = (scores["scores"][name]["lpips-uncalibrated"] for name in ("network", "bicubic"))
    assert network < bicubic
    assert whole.scores == scores["scores"]
    assert (whole.run / "preview.png").is_file()

    def interrupt(row, epochs):
        raise TrainingInterrupted("stopped", 130)

    with monkeypatch.context() as patch:
        patch.setattr(picture_training, "_print_epoch", interrupt)
        with pytest.raises(TrainingInterrupted):
            superresolve(photographs, out=tmp_path / "halves", val_fraction=0.2, **OPTIONS)
    assert main(["superresolve", "--resume", str(tmp_path / "halves")]) == 0
    expected, got = load_super_network(whole.run).state_dict(), load_super_network(tmp_path / "halves").state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)

    (photographs / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    command = ["superresolve-predict", str(photographs), "--model", str(whole.run), "--out", str(tmp_path / "large")]
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "broken.jpg" in printed
    assert "wrote 9 pictures" in printed
    large = decode_image(tmp_path / "large" / "1.png")
    assert large.shape == (128, 128, 3)
    capsys.readouterr()
    assert main([*command[:-1], str(photographs)]) == 2
    assert "is one of the pictures" in capsys.readouterr().err
    assert main([command[0], str(photographs / "broken.jpg"), *command[2:]]) == 2
    assert "none of 1 pictures could be read" in capsys.readouterr().err
    small = decode_image(photographs / "1.png").astype(float)
    assert np.abs(reduced(large, 2) - small).mean() < 8  # it still shows the same


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["superresolve"], "missing --data"),
        (["superresolve", "--data", "FOLDER", "--factor", "3"], "use 2 or 4"),
        (["superresolve", "--data", "FOLDER", "--crop", "33"], "multiple of the factor"),
        (["superresolve", "--data", "FOLDER", "--perceptual-layers", "relu9_9"], "relu9_9"),
        (["superresolve", "--data", "FOLDER", "--epochs", "0"], "--epochs 0 is not possible"),
        (["superresolve-predict", "FOLDER", "--model", "FOLDER"], "no model.safetensors there"),
    ],
)
def test_what_cannot_be(photographs, capsys, command, message):
    assert main([str(photographs) if word == "FOLDER" else word for word in command]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

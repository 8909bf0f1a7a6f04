"""`vggtransfer similarity`: pairs, values, files, and what it refuses."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from vggtransfer.cli import main
from vggtransfer.data.decode import decode_image
from vggtransfer.data.synthetic import draw_flower
from vggtransfer.errors import DataError
from vggtransfer.perceptual.picture_pairs import pair_pictures
from vggtransfer.perceptual.similarity import similarity


@pytest.fixture
def folders(tmp_path):
    """Two folders: `same.png` is equal in both, `spoilt` has a grey square in the second, the rest has no partner."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a / "sub", b / "sub"):
        folder.mkdir(parents=True)
    flower = draw_flower("daisy", size=64, seed=1)[0]
    spoilt = flower.copy()
    spoilt[8:24, 32:56] = 128
    for path, picture in (
        (a / "same.png", flower),
        (b / "same.png", flower),
        (a / "sub" / "spoilt.png", flower),
        (b / "sub" / "spoilt.bmp", spoilt),
        (a / "left.png", flower),
        (b / "right.png", flower),
        (a / "size.png", flower),
        (b / "size.png", flower[:48]),
    ):
        Image.fromarray(picture).save(path)
    return a, b


def test_pairs_by_name_whatever_the_ending(folders):
    a, b = folders
    paired = pair_pictures(a, b)
    assert [(pair.name, pair.b.name) for pair in paired.pairs] == [
        ("same.png", "same.png"),
        ("size.png", "size.png"),
        ("sub/spoilt.png", "spoilt.bmp"),
    ]
    assert (paired.only_a, paired.only_b) == ((a / "left.png",), (b / "right.png",))
    # With the very same name in both, another ending beside it is no partner.
    Image.new("RGB", (8, 8)).save(b / "same.bmp")
    assert b / "same.bmp" in pair_pictures(a, b).only_b


@pytest.mark.parametrize("case", ["missing", "mixed", "twice", "none"])
def test_pairs_that_cannot_be(folders, case):
    a, b = folders
    Image.new("RGB", (8, 8)).save(b / "sub" / "spoilt.gif")
    Image.new("RGB", (8, 8)).save(b / "sub" / "other.gif")
    first, second, message = {
        "missing": (a, b / "nowhere", "no such file or folder.*nowhere"),
        "mixed": (a, b / "same.png", "is a folder and .*same.png is not"),
        "twice": (a, b, "spoilt.bmp and sub/spoilt.gif, which differ in their endings only"),
        "none": (a / "sub", b, "no picture in .*has the name of one in"),
    }[case]
    with pytest.raises(DataError, match=message):
        pair_pictures(first, second)


def test_folders(folders, tmp_path, capsys):
    a, b = folders
    result = similarity(a, b, out=tmp_path / "out")
    same, spoilt = result.pairs
    assert same.values == {
        "lpips-uncalibrated": pytest.approx(0, abs=1e-9),
        "psnr": math.inf,
        "ssim": pytest.approx(1.0),
    }
    assert spoilt.values["lpips-uncalibrated"] > 0.05
    assert math.isclose(
        sum(spoilt.layers["lpips-uncalibrated"].values()), spoilt.values["lpips-uncalibrated"], rel_tol=1e-5
    )
    x, y = (decode_image(path) / 255 for path in (spoilt.a, spoilt.b))
    assert spoilt.values["psnr"] == pytest.approx(-10 * np.log10(((x - y) ** 2).mean()), abs=1e-3)
    assert [failed.name for failed in result.failed] == ["size.png"]
    assert "64x64 pixels and" in result.failed[0].reason

    printed = capsys.readouterr().out
    assert "not compared: size.png" in printed
    assert f"only in the first folder: {a / 'left.png'}" in printed
    assert "embedded" in printed

    written = json.loads((tmp_path / "out" / "similarity.json").read_text(encoding="utf-8"))
    assert written["pairs"][0]["psnr"] is None  # infinite
    assert written["only_b"] == [str(b / "right.png")]
    stamp = written["stamps"][0]
    assert stamp["net"] == "vgg16_bn_x0_25"
    assert stamp["heads"] == "none"
    assert stamp["input_range"] == "[0, 1]"
    assert len(stamp["weights_digest"]) == 64
    rows = list(csv.DictReader((tmp_path / "out" / "similarity.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows] == ["same.png", "sub/spoilt.png"]
    assert float(rows[1]["lpips-uncalibrated relu1_2"]) > 0

    # The hottest place of the map is where the square is, and equal pictures stay cold.
    heat = decode_image(spoilt.heat_map)
    assert heat.shape == (64, 3 * 64 + 16, 3)
    colourful = np.ptp(heat[:, 144:].astype(int), axis=2)
    row, column = np.unravel_index(colourful.argmax(), colourful.shape)
    assert 4 <= row < 28
    assert 28 <= column < 60
    assert np.ptp(decode_image(same.heat_map)[:, 144:].astype(int), axis=2).max() == 0


def test_resize_makes_sizes_equal(folders, capsys):
    a, b = folders
    assert main(["similarity", str(a / "size.png"), str(b / "size.png"), "--metric", "psnr"]) == 2
    assert "give --resize" in capsys.readouterr().err
    Image.new("RGB", (128, 128)).save(b / "large.png")
    command = ["similarity", str(a / "size.png"), str(b / "large.png"), "--metric", "dists,ssim", "--resize", "32"]
    assert main([*command, "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [stamp["resize"] for stamp in printed["stamps"]] == ["short side 32"] * 2
    assert printed["pairs"][0]["dists-uncalibrated"] > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "lpips,lpips"], "each once"),
        (["--metric", "lpisp"], "did you mean 'lpips'"),
        (["--heads", "vgg.pth"], "learned on vgg16"),
        (["--resize", "2"], "--resize 2 is not possible"),
        (["--heat-scale", "0"], "--heat-scale 0"),
    ],
)
def test_options_that_cannot_be(folders, capsys, options, message):
    a, b = folders
    assert main(["similarity", str(a), str(b), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

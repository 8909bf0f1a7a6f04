"""Each example runs, at its smallest."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vggtransfer.data.synthetic import write_synthetic_flowers

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(folder / "cache"))
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_finetune_and_predict(tmp_path, monkeypatch):
    printed = run(
        "finetune_and_predict.py", "--pictures", "4", "--epochs", "1", folder=tmp_path, monkeypatch=monkeypatch
    )
    assert "test accuracy" in printed
    assert printed.count(" is a ") == 8
    assert (tmp_path / "example-finetune" / "run" / "model.safetensors").is_file()


def test_feature_maps(tmp_path, monkeypatch):
    run("feature_maps.py", folder=tmp_path, monkeypatch=monkeypatch)
    with Image.open(tmp_path / "feature_maps.png") as figure:
        assert figure.size == (1100, 1100)


def test_linear_probe(tmp_path, monkeypatch):
    write_synthetic_flowers(tmp_path / "flowers", train=6, val=0, test=3, image_size=64)
    printed = run("linear_probe.py", "flowers", "--image-size", "64", folder=tmp_path, monkeypatch=monkeypatch)
    assert printed.startswith("48 training and 24 test pictures, 64 pixels")
    scores = [float(score) for score in re.findall(r"accuracy ([0-9.]+)%", printed)]
    assert len(scores) == 3
    assert scores[0] > scores[1]


def test_extract_and_classify(tmp_path, monkeypatch):
    write_synthetic_flowers(tmp_path / "flowers", train=6, val=0, test=3, image_size=64)
    printed = run("extract_and_classify.py", "flowers", "--image-size", "64", folder=tmp_path, monkeypatch=monkeypatch)
    assert "48 training and 24 test pictures: test accuracy" in printed
    score = float(re.search(r"test accuracy ([0-9.]+)%", printed)[1])
    assert score > 30  # one in eight by chance
    assert printed.count(" is a ") == 4
    assert int(re.search(r"pickles to ([0-9,]+) bytes", printed)[1].replace(",", "")) < 100_000
    assert (tmp_path / "features" / "manifest.json").is_file()


def test_search(tmp_path, monkeypatch):
    write_synthetic_flowers(tmp_path / "flowers", train=2, val=0, test=0, image_size=64)
    query = tmp_path / "flowers" / "train" / "rose" / "0001.png"
    printed = run("search.py", "flowers", str(query), folder=tmp_path, monkeypatch=monkeypatch).splitlines()
    assert len(printed) == 10
    assert printed[0].split() == ["1.000", "rose", str(query)]
    assert (tmp_path / "flowers.index" / "index.yaml").is_file()


def test_nearest_neighbours(tmp_path, monkeypatch):
    write_synthetic_flowers(tmp_path / "flowers", train=4, val=0, test=2, image_size=64)
    printed = run("nearest_neighbours.py", "flowers", folder=tmp_path, monkeypatch=monkeypatch)
    assert printed.startswith("32 training and 16 test pictures of 8 classes, 192 numbers each")
    assert [float(score) > 30 for score in re.findall(r"accuracy ([0-9.]+)%", printed)] == [True, True]


def test_every_example_has_a_test():
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tested] == []

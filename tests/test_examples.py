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


def test_handwritten_unet(tmp_path, monkeypatch):
    printed = run("handwritten_unet.py", "--pictures", "24", "--steps", "20", folder=tmp_path, monkeypatch=monkeypatch)
    assert float(re.search(r"other pictures: ([0-9.]+)", printed)[1]) > 0.6
    lines = (EXAMPLES / "handwritten_unet.py").read_text(encoding="utf-8").splitlines()
    assert (
        lines.index("def draw(count: int, *, seed: int) -> tuple[Tensor, Tensor]:") - lines.index("import torch") < 40
    )


def test_smp_unet(tmp_path, monkeypatch):
    printed = run("smp_unet.py", "--unfreeze", "conv5_3", folder=tmp_path, monkeypatch=monkeypatch)
    assert printed == "logits [2, 5, 64, 64]; gradients in conv5_3, bn5_3\n"


def test_faster_rcnn(tmp_path, monkeypatch):
    printed = run("faster_rcnn.py", "--side", "96", folder=tmp_path, monkeypatch=monkeypatch)
    assert "loss_box_reg" in printed
    assert "gradients from conv4_1 to bn5_3" in printed
    assert "boxes found: [" in printed


def test_train_denoiser(tmp_path, monkeypatch):
    printed = run(
        "train_denoiser.py",
        "--pictures",
        "12",
        "--size",
        "32",
        "--steps",
        "4",
        folder=tmp_path,
        monkeypatch=monkeypatch,
    )
    figures = re.findall(r"PSNR ([0-9.]+) dB, LPIPS \(lpips, uncalibrated\) ([0-9.]+)", printed)
    assert len(figures) == 2
    assert figures[0] != figures[1]
    with Image.open(tmp_path / "denoised.png") as rows:
        assert rows.size == (4 * 32, 4 * 32)


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

"""The weights that are part of the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vggtransfer.data.synthetic import write_synthetic_flowers
from vggtransfer.encoder.model_cards import read_card
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.encoder.weight_sources import find_source
from vggtransfer.encoder.weights_commands import list_weights

ARCH = "vgg16_bn_x0_25"


def test_they_are_small_and_in_half_precision() -> None:
    path = find_source(ARCH, "embedded").path
    assert path.stat().st_size <= 2_500_000
    tensors = load_file(path)
    assert {tensor.dtype for name, tensor in tensors.items() if tensor.dim() > 1} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_they_are_the_default_and_what_the_card_describes(capsys: pytest.CaptureFixture[str]) -> None:
    source = find_source(ARCH, "default")
    assert source.name == "embedded"
    card = read_card(source.path)
    assert list(card) == [
        "data",
        "recipe",
        "seed",
        "hardware",
        "time",
        "accuracy",
        "transfer",
        "licence",
        "limits",
        "digest",
    ]
    assert all(card.values())
    assert hashlib.sha256(source.path.read_bytes()).hexdigest() == source.sha256
    encoder = VGGEncoder(ARCH)
    assert card["digest"] == encoder.digest
    assert encoder.origin.startswith("embedded")
    assert (Path(__file__).parents[2] / card["recipe"].split()[0]).is_file()

    list_weights()
    shown = " ".join(capsys.readouterr().out.split())
    for heading, text in card.items():
        assert f"{heading}: {text}" in shown


def test_their_features_know_more_than_random_ones(tmp_path: Path) -> None:
    flowers = write_synthetic_flowers(tmp_path, train=12, val=0, test=12, image_size=64, seed=3)

    def features(encoder: VGGEncoder, split: str) -> tuple[np.ndarray, list[str]]:
        paths = sorted((flowers / split).glob("*/*.png")) or sorted((flowers / split).glob("*/*.jpg"))
        pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            maps = encoder(images)
        return torch.cat([tap.mean(dim=(2, 3)) for tap in maps], dim=1).numpy(), [path.parent.name for path in paths]

    accuracies = []
    for weights in ("embedded", None):
        torch.manual_seed(0)
        encoder = VGGEncoder(ARCH, weights=weights, layers=["relu3_3", "relu4_3", "relu5_3"], unfreeze="none").eval()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(*features(encoder, "train"))
        accuracies.append(model.score(*features(encoder, "test")))
    assert accuracies[0] > accuracies[1] + 0.05, accuracies

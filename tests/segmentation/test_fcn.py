from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vggtransfer.errors import OptionError
from vggtransfer.segmentation import fully_connected
from vggtransfer.segmentation.fcn import VGGFCN, BilinearUpsampling, FCNDecoder

SMALL = "vgg16_bn_x0_25"


def test_untrained_upsampling_is_bilinear_interpolation_up_to_the_borders() -> None:
    x = torch.randn(2, 3, 4, 5)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(BilinearUpsampling(3)(x), expected)


@pytest.mark.parametrize(
    ("head", "taps"), [("fcn32s", ["pool5"]), ("fcn16s", ["pool4", "pool5"]), ("fcn8s", ["pool3", "pool4", "pool5"])]
)
def test_scores_are_the_sum_of_those_of_its_taps(head: str, taps: list[str]) -> None:
    torch.manual_seed(0)
    model = VGGFCN(SMALL, classes=3, head=head, weights=None, hidden_channels=8).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert not model(images).any()  # the scoring layers start with zeros
        for layer in model.decoder.scores:
            nn.init.normal_(layer.weight)
        maps = model.encoder.features(images, layers=taps)
        decoder = model.decoder
        deepest = decoder.conv7(decoder.conv6(maps.pop("pool5")).relu()).relu()
        expected = torch.zeros(1, 3, 64, 96)
        # Bilinear interpolation by 2 after 2 is not that by 4, so each score climbs its own stairs.
        for steps, layer, tap in zip(range(len(taps)), decoder.scores, (*maps.values(), deepest), strict=True):
            scores = layer(tap)
            for _ in range(steps):
                scores = F.interpolate(scores, scale_factor=2, mode="bilinear")
            factor = 64 // scores.shape[2]
            expected += F.interpolate(scores, scale_factor=factor, mode="bilinear")
        assert expected.std() > 0
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_any_size_and_gradients_for_all_that_trains() -> None:
    model = VGGFCN(SMALL, classes=2, weights=None, unfreeze="none", hidden_channels=8)
    nn.init.normal_(model.decoder.scores[-1].weight)
    logits = model(torch.rand(2, 3, 33, 50))
    assert logits.shape == (2, 2, 33, 50)
    logits.square().mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {f"encoder.{name}" for name, _ in model.encoder.named_parameters()}


def test_fc6_and_fc7_answer_as_the_published_layers() -> None:
    torch.manual_seed(0)
    published = {
        "fc6.weight": torch.randn(16, 2 * 7 * 7),
        "fc6.bias": torch.randn(16),
        "fc7.weight": torch.randn(16, 16),
        "fc7.bias": torch.randn(16),
    }
    decoder = FCNDecoder([2], classes=1, hidden_channels=None, dropout=0.5)
    assert decoder.load_classifier(published) == ("fc6", "fc7")
    maps = torch.randn(1, 2, 7, 7)
    hidden = F.linear(maps.flatten(1), published["fc6.weight"], published["fc6.bias"])
    found = decoder.conv6(maps)[:, :, 3, 3]
    torch.testing.assert_close(found, hidden)
    torch.testing.assert_close(
        decoder.conv7(hidden[..., None, None]).flatten(1),
        F.linear(hidden, published["fc7.weight"], published["fc7.bias"]),
    )
    assert FCNDecoder([2], classes=1, hidden_channels=8, dropout=0.5).load_classifier(published) == ()


def test_published_layers_are_used_where_the_source_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VGGFCN(SMALL, classes=2, weights="embedded").pretrained_layers == ()
    published = {
        "fc6.weight": torch.rand(1024, 128 * 49),
        "fc6.bias": torch.rand(1024),
        "fc7.weight": torch.rand(1024, 1024),
        "fc7.bias": torch.rand(1024),
    }
    monkeypatch.setattr(fully_connected, "load_weights", lambda *_, **__: SimpleNamespace(classifier=published))
    model = VGGFCN(SMALL, classes=2, weights="embedded")
    assert model.pretrained_layers == ("fc6", "fc7")
    assert torch.equal(model.decoder.conv6.weight.flatten(1), published["fc6.weight"])


def test_a_trained_one_gives_its_trunk_to_others(tmp_path: Path) -> None:
    trained = VGGFCN(SMALL, classes=2, weights=None, hidden_channels=8)
    torch.save(trained.state_dict(), tmp_path / "fcn.pth")
    model = VGGFCN(SMALL, classes=3, weights=tmp_path / "fcn.pth", hidden_channels=8)
    assert model.pretrained_layers == ()
    assert torch.equal(model.encoder.trunk["conv5_3"].weight, trained.encoder.trunk["conv5_3"].weight)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": 0}, "classes=0"),
        ({"classes": 2, "head": "fcn4s"}, "fcn32s, fcn16s, fcn8s"),
        ({"classes": 2, "dropout": 1.0}, "dropout=1.0"),
        ({"classes": 2, "hidden_channels": 0}, "hidden_channels=0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        VGGFCN(SMALL, weights=None, **arguments)

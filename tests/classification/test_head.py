from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from vggtransfer.classification.head import build_head, load_pretrained_layers
from vggtransfer.classification.head_names import HeadName

SIZES = [(1, 1), (2, 3), (7, 7), (9, 5), (14, 14)]


def linear(head: nn.Sequential, name: str) -> nn.Linear:
    layer = head.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


@pytest.mark.parametrize("name", ["linear", "mlp", "vgg", "arcface"])
def test_scores_of_maps_of_any_size(name: HeadName) -> None:
    head = build_head(name, in_channels=4, classes=6, dropout=0.5).eval()
    for height, width in SIZES:
        assert head(torch.rand(2, 4, height, width)).shape == (2, 6)


def test_linear_is_the_mean_over_the_map_and_one_layer() -> None:
    head = build_head("linear", in_channels=5, classes=3, dropout=0.9).eval()
    last = linear(head, "linear")
    nn.init.uniform_(last.bias)
    maps = torch.rand(2, 5, 4, 6)
    torch.testing.assert_close(head(maps), maps.mean(dim=(2, 3)) @ last.weight.T + last.bias)


def test_mlp_has_one_hidden_layer_as_wide_as_its_input() -> None:
    head = build_head("mlp", in_channels=5, classes=3, dropout=0.9).eval()
    hidden, last = linear(head, "hidden"), linear(head, "linear")
    assert hidden.weight.shape == (5, 5)
    nn.init.uniform_(hidden.weight, -1, 1)
    nn.init.uniform_(last.weight, -1, 1)
    maps = torch.rand(8, 5, 4, 6)
    inner = maps.mean(dim=(2, 3)) @ hidden.weight.T + hidden.bias
    assert bool((inner < 0).any())
    torch.testing.assert_close(head(maps), inner.clamp_min(0) @ last.weight.T + last.bias)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_vgg_is_the_published_classifier(training: bool) -> None:
    head = build_head("vgg", in_channels=512, classes=5, dropout=0.5).train(training)
    with torch.device("meta"):
        published = torchvision.models.VGG(nn.Sequential(), num_classes=5, init_weights=False)
    layers = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    shared = {f"{layers[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in head.state_dict().items()}
    published.load_state_dict(shared, assign=True)
    published.train(training)
    for size in ((7, 7), (9, 5)):
        maps = torch.rand(2, 512, *size)
        # The same seed drops the same units, if dropout stands at the same places.
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(3)
            expected = published(maps)
            torch.manual_seed(3)
            assert torch.equal(head(maps), expected)


@pytest.mark.parametrize("name", ["linear", "mlp", "vgg"])
def test_dropout_is_in_training_only(name: HeadName) -> None:
    head = build_head(name, in_channels=64, classes=3, dropout=0.5)
    maps = torch.rand(4, 64, 7, 7)
    assert not torch.equal(head.train()(maps), head(maps))
    assert torch.equal(head.eval()(maps), head(maps))
    none = build_head(name, in_channels=64, classes=3, dropout=0.0).train()
    assert torch.equal(none(maps), none(maps))


def test_new_layers_start_small() -> None:
    head = build_head("mlp", in_channels=256, classes=100, dropout=0.5)
    for layer in (linear(head, "hidden"), linear(head, "linear")):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert not layer.bias.detach().any()


def test_pretrained_layers_fill_fc6_and_fc7_but_never_fc8() -> None:
    head = build_head("vgg", in_channels=2, classes=5, dropout=0.5)
    fresh = {key: value.clone() for key, value in head.state_dict().items()}
    published = {
        "fc6.weight": torch.rand(4096, 98),
        "fc6.bias": torch.rand(4096),
        "fc7.weight": torch.rand(4096, 4096),
        "fc7.bias": torch.rand(4096),
        "fc8.weight": torch.rand(5, 4096),
        "fc8.bias": torch.rand(5),
    }
    assert load_pretrained_layers(head, {}) == ()
    assert all(torch.equal(value, fresh[key]) for key, value in head.state_dict().items())
    assert load_pretrained_layers(head, published) == ("fc6", "fc7")
    for key, value in head.state_dict().items():
        assert torch.equal(value, fresh[key] if key.startswith("fc8") else published[key]), key

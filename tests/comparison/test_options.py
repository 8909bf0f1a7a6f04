from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import nn

from vggtransfer.comparison.command import compare
from vggtransfer.comparison.figure import spread
from vggtransfer.comparison.networks import (
    build,
    count_macs,
    has_batch_norm,
    initialise,
    published_costs,
    smallest_pictures,
)
from vggtransfer.comparison.options import plan_for
from vggtransfer.encoder.preprocessing import TORCHVISION
from vggtransfer.encoder.trunk_files import FileHeader, weights_digest, write_weights
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.encoder.weight_sources import find_source
from vggtransfer.errors import WeightsError

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(compare).parameters.items()}
MINIMA = {"lenet5": 32, "alexnet": 63, "vgg16": 32, "vgg16_bn": 32}


def plan(arch, *, batch_norm=False, **changes):
    return plan_for(arch, {**DEFAULTS, **changes}, batch_norm=batch_norm, minimum=MINIMA[arch])


def test_networks_without_batch_norm_get_less_and_are_held_tighter():
    plain, forgiving = plan("vgg16"), plan("vgg16_bn", batch_norm=True)
    assert (plain.learning_rate, plain.warmup_epochs, plain.gradient_clip) == (0.02, 4.0, 1.0)
    assert (forgiving.learning_rate, forgiving.warmup_epochs, forgiving.gradient_clip) == (0.1, 2.0, None)
    assert plan("vgg16", epochs=5).warmup_epochs == 1.0
    assert plan("vgg16", optimizer="adamw").learning_rate == 2e-4
    assert plan("vgg16_bn", batch_norm=True, optimizer="muon").learning_rate == 2e-3


def test_given_values_hold_for_all_and_zero_means_no_clipping():
    for arch, batch_norm in (("vgg16", False), ("vgg16_bn", True)):
        given = plan(arch, batch_norm=batch_norm, lr=0.5, warmup_epochs=0.0, gradient_clip=0.0)
        assert (given.learning_rate, given.backbone_learning_rate) == (0.5, 0.5)
        assert (given.warmup_epochs, given.gradient_clip) == (0.0, None)


def test_pretrained_layers_train_at_a_tenth():
    tuned = plan("vgg16", weights="default")
    assert (tuned.learning_rate, tuned.backbone_learning_rate, tuned.gradient_clip) == (0.01, 0.001, None)
    assert tuned.image_size == 224


def test_pictures_are_as_small_as_the_network_takes():
    assert [plan(arch).image_size for arch in MINIMA] == [32, 64, 32, 32]
    assert [plan(arch, image_size=96).image_size for arch in MINIMA] == [32, 96, 96, 96]
    schedule = {"image_size": 64, "train_size": "32 48@2"}
    assert plan("vgg16", **schedule).train_sizes == ((0, 32), (2, 48))
    assert plan("alexnet", **schedule).train_sizes == ((0, 63), (2, 63))
    assert plan("lenet5", **schedule).train_sizes == ((0, 32),)
    schedule["image_size"] = 32
    assert plan("vgg16", **schedule).train_sizes == ((0, 32), (2, 48))
    assert plan("alexnet", **schedule).train_sizes == ((0, 64),)
    assert plan("lenet5", **schedule).train_sizes == ((0, 32),)
    assert smallest_pictures("vgg11") == 32


def test_published_costs_are_those_of_inspect():
    assert (published_costs("vgg16").parameters, published_costs("vgg16").macs) == (138_357_544, 15_470_264_320)
    assert (published_costs("alexnet").parameters, published_costs("alexnet").macs) == (61_100_840, 714_188_480)
    assert (published_costs("lenet5").parameters, published_costs("lenet5").image_size) == (61_706, 32)
    assert published_costs("vgg16_bn_x0_25").parameters == 922_896


def test_receptive_fields_are_those_of_the_last_map():
    # VGG16 by hand: 13 convolutions add 2 pixels at strides 1, 2, 4, 8, 16, five poolings 1; LeNet-5 sees it all.
    by_hand = 1 + 2 * (2 * 1 + 2 * 2 + 3 * 4 + 3 * 8 + 3 * 16) + (1 + 2 + 4 + 8 + 16)
    assert published_costs("vgg16").receptive_field == by_hand
    fields = {"lenet5": 32, "alexnet": 195, "resnet18": 435, "vgg19": 268}
    assert {arch: published_costs(arch).receptive_field for arch in fields} == fields


def test_pretrained_vgg_needs_no_more_than_the_trunk_where_its_head_is_new(monkeypatch, tmp_path):
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    for variable in ("VGGTRANSFER_TORCHVISION_URL", "HF_ENDPOINT"):
        monkeypatch.setenv(variable, (tmp_path / "nowhere").as_uri())
    encoder = VGGEncoder("vgg11", weights=None, layers=["pool5"])
    trunk = {name: tensor.detach() for name, tensor in encoder.trunk.state_dict().items()}
    header = FileHeader("trunk", "vgg11", TORCHVISION.mean, TORCHVISION.std, "test", weights_digest(trunk), {})
    write_weights(find_source("vgg11", "default").path, trunk, header)
    options = {"classes": ("a", "b"), "image_size": 32, "weights": "default", "initialisation": "he"}
    for head in ("linear", "mlp"):
        network = build("vgg11", head=head, **options)
        assert torch.equal(network.model.encoder.trunk["conv1_1"].weight, trunk["conv1_1.weight"])
    with pytest.raises(WeightsError, match="cannot download"):  # fc6 and fc7 are in no cache
        build("vgg11", head="vgg", **options)


def tiny(initialisation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.Linear(512, 256), nn.Linear(256, 10))
    nn.init.constant_(model[1].weight, 0.7)
    initialise(model, initialisation)
    return model


def test_he_keeps_variances_and_begins_with_equal_scores():
    model = tiny("he")
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert model[2].weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.03)
    assert model[3].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(layer.bias.any() for layer in (model[0], model[2], model[3]))
    assert (model[1].weight == 0.7).all()


def test_glorot_is_uniform_and_torch_is_what_torch_does():
    model = tiny("glorot")
    limit = math.sqrt(6 / (32 * 9 + 64 * 9))
    assert 0.99 * limit < model[0].weight.abs().max() <= limit
    assert not model[3].bias.any()
    torch.manual_seed(0)
    model = tiny("torch")
    assert model[0].weight.abs().max() <= 1 / math.sqrt(32 * 9)
    assert model[0].bias.any()


def test_heads_of_vgg_networks():
    classes = ("a", "b", "c")
    options = {"classes": classes, "image_size": 32, "weights": "none", "initialisation": "he"}
    linear = build("vgg16_bn_x0_25", head="linear", **options)
    assert linear.model.task.dropout == 0.0
    assert linear.model.task.crop_fraction == 1.0
    assert linear.pretrained_layers == {}
    assert has_batch_norm(linear.model)
    assert linear.model.training
    count_macs(linear.model, 32)
    assert linear.model.training
    assert not has_batch_norm(build("lenet5", head="linear", **options).model)


def test_names_are_moved_apart_by_as_little_as_possible():
    assert spread([1.0, 2.0, 3.0], 0.5, low=0.0, high=4.0) == [1.0, 2.0, 3.0]
    assert spread([2.0, 2.0], 1.0, low=0.0, high=4.0) == [1.5, 2.5]
    assert spread([3.9, 4.0], 1.0, low=0.0, high=4.0) == [3.0, 4.0]
    assert spread([0.0, 0.0, 0.1], 1.0, low=0.0, high=4.0) == [0.0, 1.0, 2.0]
    assert spread([1.0, 1.0, 1.0], 9.0, low=0.0, high=4.0) == [0.0, 2.0, 4.0]
    assert spread([], 1.0, low=0.0, high=1.0) == []

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, architecture
from vggtransfer.encoder.key_layouts import fit_architecture, recognise_keys
from vggtransfer.encoder.preprocessing import (
    _CAFFE_VGG16,
    _CAFFE_VGG19,
    CAFFE_BGR,
    CAFFE_RGB,
    NONE,
    TORCHVISION,
    caffe_fingerprint,
    is_caffe_file_name,
    known_preprocessing,
)
from vggtransfer.errors import WeightsError

STANDARD = ("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")
PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "model.", "encoder.", "net.model.", "model.backbone.")


def torchvision_model(arch: str) -> nn.Module:
    """Names and shapes without the memory."""
    import torchvision

    with torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(arch, weights=None)
    return model


def timm_model(arch: str, **options: Any) -> nn.Module:
    import timm

    with torch.device("meta"):
        model: nn.Module = timm.create_model(arch, pretrained=False, **options)
    return model


def smp_model(arch: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    with torch.device("meta"):
        model: nn.Module = smp.Unet(arch, encoder_weights=None)
    return model


def fit(tensors: dict[str, Tensor], arch: str | None, *, depth: int = 5) -> tuple[str, dict[str, Tensor]]:
    return fit_architecture(recognise_keys(tensors, source="FILE"), arch, depth=depth, source="FILE")


@pytest.mark.parametrize("arch", STANDARD)
@pytest.mark.parametrize("library", ["torchvision", "timm", "smp"])
def test_all_standard_models_of_the_libraries(arch: str, library: str) -> None:
    model = {"torchvision": torchvision_model, "timm": timm_model, "smp": smp_model}[library](arch)
    state = dict(model.state_dict())
    found = recognise_keys(state, source="FILE")
    # smp's file is torchvision's trunk inside another network.
    assert found.layout == ("timm" if library == "timm" else "torchvision")
    assert {key: list(value.shape) for key, value in found.classifier.items()} == (
        {}
        if library == "smp"
        else {
            "fc6.weight": [4096, 25088],
            "fc6.bias": [4096],
            "fc7.weight": [4096, 4096],
            "fc7.bias": [4096],
            "fc8.weight": [1000, 4096],
            "fc8.bias": [1000],
        }
    )
    for asked in (arch, None):
        name, trunk = fit_architecture(found, asked, depth=5, source="FILE")
        assert name == arch
        features = model.encoder.features if library == "smp" else model.features
        assert {key: value.shape for key, value in trunk.items()} == {
            key: value.shape for key, value in named(features).items()
        }


def named(features: Any) -> dict[str, Tensor]:
    """The paper's names for the tensors of a Sequential, counted independently of the package."""
    block, index = 1, 0
    expected: dict[str, Tensor] = {}
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            block, index = block + 1, 0
            continue
        index += isinstance(module, nn.Conv2d)
        layer = f"conv{block}_{index}" if isinstance(module, nn.Conv2d) else f"bn{block}_{index}"
        expected |= {f"{layer}.{name}": value for name, value in module.state_dict(keep_vars=True).items()}
    return {key: value for key, value in expected.items() if "num_batches" not in key}


@pytest.mark.parametrize("arch", ["vgg11", "vgg16_bn"])
def test_every_value_goes_to_its_layer(arch: str) -> None:
    model = torchvision_model(arch)
    expected = named(model.features)
    for prefix in ("", *PREFIXES):
        state = {prefix + key: value for key, value in model.state_dict(keep_vars=True).items()}
        _, trunk = fit(state, arch)
        assert trunk.keys() == expected.keys()
        assert all(trunk[key] is expected[key] for key in expected), prefix


def test_other_ways_to_save_the_trunk() -> None:
    model = torchvision_model("vgg16")
    _, expected = fit(dict(model.state_dict()), "vgg16")
    shapes = {key: value.shape for key, value in expected.items()}
    ways = {
        "the Sequential alone": model.features.state_dict(),
        "the Sequential under DataParallel": {f"module.{k}": v for k, v in model.features.state_dict().items()},
        "DataParallel around the features": {
            k.replace("features.", "features.module."): v for k, v in model.state_dict().items()
        },
        "compiled features": {k.replace("features.", "features._orig_mod."): v for k, v in model.state_dict().items()},
        "timm features_only": timm_model("vgg16", features_only=True).state_dict(),
        "timm without its classifier": {
            k: v for k, v in timm_model("vgg16").state_dict().items() if k.startswith("features")
        },
        "papers' names": expected,
        "VGGEncoder": {f"encoder.trunk.{k}": v for k, v in expected.items()} | {"head.fc8.weight": torch.empty(3, 9)},
    }
    for way, state in ways.items():
        name, trunk = fit(dict(state), None)
        assert name == "vgg16", way
        assert {key: value.shape for key, value in trunk.items()} == shapes, way


def test_timm_convolutions_become_matrices_in_torch_order() -> None:
    fc1 = torch.arange(4 * 2 * 7 * 7, dtype=torch.float64).reshape(4, 2, 7, 7)
    state = {"features.0.weight": torch.zeros(1), "pre_logits.fc1.weight": fc1, "head.fc.bias": torch.ones(3)}
    found = recognise_keys(state, source="FILE")
    pooled = torch.randn(5, 2, 7, 7, dtype=torch.float64)
    expected = nn.functional.conv2d(pooled, fc1).flatten(1)
    ours = nn.functional.linear(pooled.flatten(1), found.classifier["fc6.weight"])
    torch.testing.assert_close(ours, expected)
    assert found.classifier["fc8.bias"] is state["head.fc.bias"]


def test_jcjohnsons_classifier_indices() -> None:
    state = {"features.0.weight": torch.zeros(1)}
    for number, index in enumerate((1, 4, 6)):
        state |= {f"classifier.{index}.weight": torch.full((1, 1), number), f"classifier.{index}.bias": torch.zeros(1)}
    found = recognise_keys(state, source="FILE")
    assert found.has_old_classifier_keys
    assert [found.classifier[f"fc{layer}.weight"].item() for layer in (6, 7, 8)] == [0, 1, 2]


def test_a_foreign_classifier_is_not_taken_for_vggs() -> None:
    state = {"features.0.weight": torch.zeros(1), "classifier.weight": torch.zeros(2, 2)}
    assert recognise_keys(state, source="FILE").classifier == {}
    state = {"features.0.weight": torch.zeros(1), "classifier.2.weight": torch.zeros(2, 2)}
    assert recognise_keys(state, source="FILE").classifier == {}


def keras_tensors(arch: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer in architecture(arch).layers:
        if layer.kind == "conv":
            name = f"block{layer.block}_conv{layer.name[-1]}"
            shape = (layer.kernel_size, layer.kernel_size, layer.in_channels, layer.out_channels)
            tensors |= {
                f"{name}/kernel": torch.empty(shape, device="meta"),
                f"{name}/bias": torch.empty(layer.out_channels, device="meta"),
            }
    return tensors


def test_keras_kernels_are_turned() -> None:
    name, trunk = fit(keras_tensors("vgg19"), None)
    assert name == "vgg19"
    assert trunk["conv2_1.weight"].shape == (128, 64, 3, 3)

    kernel = torch.randn(3, 3, 3, 2)
    found = recognise_keys({"block1_conv1/kernel": kernel}, source="FILE").trunk["conv1_1.weight"]
    assert found[1, 2, 0, 1] == kernel[0, 1, 2, 1]


@pytest.mark.parametrize("side", [1, 2, 7])
def test_keras_flatten_order(side: int) -> None:
    kernel = torch.randn(side * side * 512, 3)
    found = recognise_keys({"block1_conv1/bias": torch.zeros(1), "fc1/kernel": kernel}, source="FILE")
    pooled = torch.randn(2, 512, side, side)
    keras_order = pooled.permute(0, 2, 3, 1).flatten(1) @ kernel
    torch_order = nn.functional.linear(pooled.flatten(1), found.classifier["fc6.weight"])
    torch.testing.assert_close(torch_order, keras_order, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("tensors", "source", "message"),
    [
        ({"block1_conv1/kernel": torch.zeros(64, 3, 3, 3)}, "FILE", "order of Theano kernels"),
        ({"block1_conv1/kernel": torch.zeros(3, 3, 3, 64)}, "vgg16_tf_th_kernels.h5", "mirrored kernels"),
        ({"fc1/kernel": torch.zeros(512 * 3, 4)}, "FILE", "fc1/kernel has 1536 inputs"),
        ({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, "FILE", "no VGG trunk; its keys"),
        (
            {"a.features.0.weight": torch.zeros(1), "b.features.0.weight": torch.zeros(1)},
            "FILE",
            r"2 VGG trunks, under 'a\.', 'b\.'",
        ),
    ],
)
def test_what_cannot_be_recognised(tensors: dict[str, Tensor], source: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        recognise_keys(tensors, source=source)
    assert str(caught.value).startswith(source)
    assert "\n" not in str(caught.value)


def test_layout_that_was_asked_for_must_be_there() -> None:
    torchvision, timm = dict(torchvision_model("vgg11").state_dict()), dict(timm_model("vgg11").state_dict())
    assert recognise_keys(torchvision, layout="caffe", source="FILE").layout == "torchvision"
    headless = {key: value for key, value in timm.items() if key.startswith("features")}
    assert recognise_keys(headless, layout="timm", source="FILE").layout == "torchvision"
    with pytest.raises(WeightsError, match="key names of timm, not of torchvision"):
        recognise_keys(timm, layout="torchvision", source="FILE")
    with pytest.raises(WeightsError, match="key names of torchvision, not of keras"):
        recognise_keys(torchvision, layout="keras", source="FILE")


@pytest.mark.parametrize("arch", STANDARD)
def test_another_architecture_is_named(arch: str) -> None:
    state = dict(torchvision_model(arch).state_dict())
    for other in ARCHITECTURE_NAMES:
        if other != arch:
            with pytest.raises(WeightsError, match=f"FILE looks like {arch}, not {other}; use arch='{arch}'"):
                fit(state, other)


def test_what_does_not_fit_is_told() -> None:
    state = dict(torchvision_model("vgg16").state_dict())

    missing = {key: value for key, value in state.items() if key not in ("features.28.bias", "features.26.bias")}
    with pytest.raises(WeightsError, match=r"does not fit vgg16: 2 tensors are missing: 26\.bias, 28\.bias"):
        fit(missing, "vgg16")
    with pytest.raises(WeightsError, match="matches none of the architectures"):
        fit(missing, None)

    wider = state | {"features.28.weight": torch.empty(513, 512, 3, 3, device="meta")}
    with pytest.raises(WeightsError, match=re.escape("28.weight (conv5_3.weight) is [513, 512, 3, 3] instead of")):
        fit(wider, "vgg16")

    longer = state | {"features.31.weight": torch.empty(1024, 512, 3, 3, device="meta")}
    with pytest.raises(WeightsError, match=r"1 tensors do not belong to it: 31\.weight"):
        fit(longer, "vgg16")

    quantised = state | {"features.28.weight": torch.empty(512, 512, 3, 3, dtype=torch.int8, device="meta")}
    with pytest.raises(WeightsError, match=r"conv5_3\.weight\) is torch\.int8, not floating point"):
        fit(quantised, "vgg16")


def test_first_blocks_alone() -> None:
    state = {
        key: value
        for key, value in torchvision_model("vgg16").state_dict().items()
        if key.startswith("features.") and int(key.split(".")[1]) < 17
    }
    with pytest.raises(WeightsError, match="holds only 3 of the 5 blocks of vgg16"):
        fit(state, "vgg16")
    name, trunk = fit(state, "vgg16", depth=3)
    assert (name, list(trunk)[-1]) == ("vgg16", "conv3_3.bias")


def caffe_filters(listing: tuple[float | None, ...]) -> tuple[Tensor, Tensor]:
    """conv1_1 whose first filter is a published one; its unlisted values follow the planes that are listed."""
    planes = torch.tensor([value or 0.0 for value in listing[:-1]]).view(3, 9)
    planes = planes[0] * (planes[:, :1] / planes[0, 0])
    weight, bias = torch.randn(64, 3, 3, 3), torch.randn(64)
    weight[0], bias[0] = planes.view(3, 3, 3), listing[-1] or 0.0
    return weight, bias


@pytest.mark.parametrize("listing", [_CAFFE_VGG16, _CAFFE_VGG19], ids=["vgg16", "vgg19"])
def test_fingerprint_of_the_caffe_networks(listing: tuple[float | None, ...]) -> None:
    torch.manual_seed(0)
    weight, bias = caffe_filters(listing)
    assert caffe_fingerprint(weight, bias) is CAFFE_BGR
    assert caffe_fingerprint(weight.flip(1), bias) is CAFFE_RGB
    # Rescaled as for style transfer, and fine-tuned a little.
    assert caffe_fingerprint(weight * 0.013, bias * 0.013) is CAFFE_BGR
    assert caffe_fingerprint(weight + 0.005 * torch.randn_like(weight), bias + 0.005) is CAFFE_BGR


def test_other_filters_have_no_fingerprint() -> None:
    torch.manual_seed(0)
    for _ in range(300):
        assert caffe_fingerprint(torch.randn(1, 3, 3, 3), torch.randn(1)) is None
    assert caffe_fingerprint(torch.zeros(1, 3, 3, 3), torch.zeros(1)) is None
    assert caffe_fingerprint(torch.randn(1, 1, 3, 3), torch.randn(1)) is None


@pytest.mark.parametrize(
    "name", ["vgg16-00b39a1b.pth", "vgg19-d01eb7cb.pth", "vgg16-00b39a1b-updated.pth", "VGG_Caffe.pt"]
)
def test_names_of_the_caffe_ports(name: str) -> None:
    assert is_caffe_file_name(name)
    assert not is_caffe_file_name("vgg16-397923af.pth")


def test_preprocessing_constants_are_the_libraries() -> None:
    import timm
    import torchvision

    transforms = torchvision.models.VGG16_Weights.DEFAULT.transforms()
    assert (TORCHVISION.mean, TORCHVISION.std) == (tuple(transforms.mean), tuple(transforms.std))
    config = timm.get_pretrained_cfg("vgg16")
    assert config is not None
    assert (TORCHVISION.mean, TORCHVISION.std) == (config.mean, config.std)

    # keras.applications.vgg16.preprocess_input: BGR, 0-255, minus these.
    picture = torch.rand(2, 3, 4, 4)
    keras = picture.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    ours = (picture - torch.tensor(CAFFE_BGR.mean).view(3, 1, 1)) / torch.tensor(CAFFE_BGR.std).view(3, 1, 1)
    torch.testing.assert_close(ours.flip(1), keras, rtol=0, atol=1e-4)


def test_usual_numbers_get_their_names() -> None:
    for usual in (TORCHVISION, CAFFE_RGB, NONE):
        found = known_preprocessing(tuple(x + 1e-8 for x in usual.mean), usual.std)
        assert found.name == usual.name
        assert not found.bgr
    assert known_preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).name == "mean/std 0.5/0.5, 0.5/0.5, 0.5/0.5"
    assert known_preprocessing((0.5,), (0.25,)).name == "mean/std 0.5/0.25"

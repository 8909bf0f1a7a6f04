from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import create_feature_extractor

from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES
from vggtransfer.encoder.inspection import NETWORK_NAMES, Inspection, inspect
from vggtransfer.encoder.layer_costs import LayerCosts, ReceptiveField, compare_stacked_kernels
from vggtransfer.encoder.other_networks import build_network
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError

PUBLISHED_PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "alexnet": 61_100_840,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "densenet121": 7_978_856,
    "lenet5": 61_706,
}


# Many tests look at the same tables.
inspected = functools.cache(inspect)


def row(inspection: Inspection, name: str) -> LayerCosts:
    return next(row for row in inspection.rows if row.name == name)


@pytest.mark.parametrize(("arch", "parameters"), PUBLISHED_PARAMETERS.items())
def test_parameters_are_the_published_ones(arch, parameters):
    assert inspected(arch).total.parameters == parameters


@pytest.mark.parametrize(
    ("arch", "gigaflops"),
    # GFLOPS (multiply-accumulates) in torchvision's tables of weights.
    [
        ("vgg11", 7.61),
        ("vgg13", 11.31),
        ("vgg16", 15.47),
        ("vgg19", 19.63),
        ("alexnet", 0.71),
        ("googlenet", 1.50),
        ("resnet18", 1.81),
        ("densenet121", 2.83),
    ],
)
def test_macs_are_the_published_ones(arch, gigaflops):
    assert round(inspected(arch).total.macs / 1e9, 2) == gigaflops


def test_vgg16_macs_by_kind():
    total = inspected("vgg16").total
    assert (total.conv_macs, total.linear_macs) == (15_346_630_656, 123_633_664)
    assert total.macs == 15_470_264_320


def torchvision_network(arch: str) -> nn.Module:
    import torchvision

    with torch.device("meta"):
        if arch.startswith("vgg"):
            return getattr(torchvision.models, arch)(weights=None, init_weights=False).eval()
        return build_network(arch, in_channels=1 if arch == "lenet5" else 3)


@pytest.mark.parametrize(
    ("arch", "image_size"),
    [
        ("vgg16", 224),
        ("vgg11_bn", 100),
        ("vgg19_bn", 300),
        ("alexnet", 150),
        ("lenet5", 32),
        ("googlenet", 100),
        ("resnet18", 97),
        ("densenet121", 224),
    ],
)
def test_macs_are_half_the_flops_that_torch_counts(arch, image_size):
    inspection = inspected(arch, image_size=image_size)
    with FlopCounterMode(display=False) as counter:
        torchvision_network(arch)(torch.empty(1, inspection.in_channels, image_size, image_size, device="meta"))
    assert 2 * inspection.total.macs == counter.get_total_flops()


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("arch", ["vgg16_bn_x0_25", "vgg11_lrn", "vgg16_1x1"])
def test_vgg_rows_agree_with_the_encoder(arch, output_stride):
    inspection = inspected(arch, image_size=45, output_stride=output_stride, in_channels=2, classifier=False)
    names = [row.name for row in inspection.rows]
    with torch.device("meta"):
        encoder = VGGEncoder(
            arch, weights=None, in_channels=2, output_stride=output_stride, layers=names, normalize=False
        )
        with FlopCounterMode(display=False) as counter:
            taps = encoder(torch.empty(1, 2, 45, 45))
    for costs, tap, stride in zip(inspection.rows, taps, encoder.strides, strict=True):
        assert costs.shape == tuple(tap.shape[1:])
        assert costs.stride == stride
        assert costs.activation_bytes == tap.nbytes
        assert costs.parameters == sum(parameter.numel() for parameter in encoder.trunk[costs.name].parameters())
    assert 2 * inspection.total.macs == counter.get_total_flops()


def test_vgg16_receptive_fields_are_the_published_ones():
    inspection = inspected("vgg16")
    expected = {"conv1_1": 3, "conv1_2": 5, "pool1": 6, "relu3_3": 40, "relu5_3": 196, "pool5": 212, "fc6": 404}
    assert {name: row(inspection, name).receptive_field for name in expected} == expected
    assert row(inspection, "pool5").stride == 32
    assert row(inspection, "fc6").stride is None


def test_dilation_keeps_receptive_fields_and_weights():
    for output_stride in (8, 16):
        dilated, plain = (inspected("vgg19", output_stride=s, classifier=False) for s in (output_stride, 32))
        assert [r.receptive_field for r in dilated.rows] == [r.receptive_field for r in plain.rows]
        assert dilated.total.parameters == plain.total.parameters
        assert row(dilated, "pool5").stride == output_stride
        assert row(dilated, "pool5").shape == (512, 224 // output_stride, 224 // output_stride)


def linearise(network: nn.Module) -> None:
    """Makes every layer answer 1 where it sees any light and 0 where it sees none.

    With weights of 1 a convolution counts the lit values, and an average over 2x2 that sees one is at least 1/4, so
    that 0.1 separates some from none and from rounding.
    """
    for parameter_name, parameter in network.named_parameters():
        nn.init.constant_(parameter, 0.0 if parameter_name.endswith("bias") else 1.0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.AvgPool2d):
            module.register_forward_hook(lambda _module, _inputs, output: (output > 0.1).float())


def measured_field(respond: Callable[[Tensor], Tensor], width: int, height: int) -> int:
    """The width of what the middle unit of a map sees, found by lighting the picture from either side by bisection."""

    def sees(columns: slice) -> bool:
        picture = torch.zeros(1, 3, height, width)
        picture[..., columns] = 1
        with torch.no_grad():
            answer = respond(picture)
        return bool((answer[0, :, :, answer.shape[-1] // 2] > 0).any())

    assert not sees(slice(0, 1))
    assert not sees(slice(width - 1, width))
    dark, first = 0, width - 1  # columns up to and including: `dark` is not enough, `first` is
    while first - dark > 1:
        middle = (first + dark) // 2
        dark, first = (dark, middle) if sees(slice(0, middle + 1)) else (middle, first)
    last, dark = 0, width - 1
    while dark - last > 1:
        middle = (last + dark) // 2
        last, dark = (middle, dark) if sees(slice(middle, width)) else (last, middle)
    return last - first + 1


@pytest.mark.parametrize(
    ("output_stride", "layer"), [(32, "pool5"), (16, "conv5_3"), (16, "pool5"), (8, "conv4_3"), (8, "pool5")]
)
def test_vgg_receptive_field_is_what_the_encoder_sees(output_stride, layer):
    encoder = VGGEncoder("vgg16_bn_x0_25", weights=None, normalize=False, output_stride=output_stride, layers=[layer])
    linearise(encoder.eval())
    expected = row(inspected("vgg16_bn_x0_25", output_stride=output_stride), layer).receptive_field
    assert measured_field(lambda picture: encoder(picture)[0], width=288, height=32) == expected


@pytest.mark.parametrize(
    ("arch", "node", "width"),
    [
        ("alexnet", "features.12", 288),
        ("googlenet", "inception3a.cat", 96),
        ("googlenet", "inception5b.cat", 512),
        ("resnet18", "layer2.0.add", 96),
        ("resnet18", "layer4.1.relu_1", 512),
        ("densenet121", "features.denseblock2.cat", 320),
    ],
)
def test_receptive_field_of_other_networks_is_what_they_see(arch, node, width):
    network = build_network(arch, in_channels=3)
    linearise(network)
    extractor = create_feature_extractor(network, {node: "map"}, suppress_diff_warning=True).eval()
    expected = row(inspected(arch), node).receptive_field
    assert measured_field(lambda picture: extractor(picture)["map"], width=width, height=64) == expected


def test_receptive_field_of_joined_branches_covers_both():
    left = ReceptiveField(first=-4, last=1)
    right = ReceptiveField(first=-1, last=3)
    assert left.union(right).size == 8
    with pytest.raises(ValueError, match="strides 1 and 2"):
        left.union(ReceptiveField(stride=2))


def test_uneven_pooling_reports_the_widest_window_and_then_everything():
    field = ReceptiveField().window(2, stride=2)
    pooled = field.adaptive(10, 7)  # windows of 2 and of 3 units
    assert (pooled.size, pooled.stride) == (6, None)
    assert pooled.all_of(7).size == 20
    even = field.adaptive(14, 7)
    assert (even.size, even.stride, even.all_of(7).size) == (4, 4, 28)


def test_adaptive_pooling_windows_are_those_of_torch():
    for units in range(1, 30):
        pooled = ReceptiveField().adaptive(units, 7)
        seen = nn.AdaptiveAvgPool1d(7)(torch.eye(units)[:, None])[:, 0] > 0
        assert pooled.size == seen.sum(0).max()


def test_stacked_kernels_see_as_much_with_fewer_weights():
    two, three = compare_stacked_kernels(channels=64)
    assert (two.receptive_field, two.weights, two.single_weights) == (5, 18 * 64**2, 25 * 64**2)
    assert (three.receptive_field, three.weights, three.single_weights) == (7, 27 * 64**2, 49 * 64**2)
    assert inspected("vgg11").stacked_kernels == compare_stacked_kernels(channels=1)


@pytest.mark.parametrize("arch", NETWORK_NAMES)
def test_blocks_add_up_to_the_layers(arch):
    layers, blocks = inspected(arch), inspected(arch, level="block")
    assert blocks.total == layers.total
    assert len(blocks.rows) < len(layers.rows)
    assert len({row.name for row in layers.rows}) == len(layers.rows)
    assert len({row.name for row in blocks.rows}) == len(blocks.rows)
    for field in ("parameters", "trainable_parameters", "macs", "activation_bytes"):
        assert sum(getattr(row, field) for row in blocks.rows) == getattr(layers.total, field)
        assert sum(getattr(row, field) for row in layers.rows) == getattr(layers.total, field)
    assert blocks.rows[-1].shape == layers.rows[-1].shape


def test_freezing_policy_shows():
    inspection = inspected("vgg16_bn", unfreeze="conv5_2-block5")
    status = {row.name: row.status for row in inspection.rows}
    assert [status[name] for name in ("conv1_1", "bn5_1", "conv5_2", "bn5_3", "fc6")] == [
        "frozen",
        "frozen",
        "trainable",
        "trainable",
        "trainable",
    ]
    assert status["relu5_3"] == ""
    blocks = inspected("vgg16_bn", unfreeze="conv5_2-block5", level="block")
    assert [row.status for row in blocks.rows] == ["frozen"] * 4 + ["partly", "trainable"]
    head_only = inspected("vgg16", unfreeze="none").total
    assert head_only.trainable_parameters == 123_642_856
    assert head_only.parameters - head_only.trainable_parameters == 14_714_688


def test_classifier_of_other_sizes_pools_first():
    assert "avgpool" not in {row.name for row in inspected("vgg16").rows}
    larger = inspected("vgg16", image_size=320)
    assert row(larger, "avgpool").shape == (512, 7, 7)
    assert row(larger, "avgpool").receptive_field == 212 + 2 * 32  # some of the windows over 10 units are 3 wide
    assert row(larger, "fc6").receptive_field == 212 + 9 * 32
    assert larger.total.linear_macs == inspected("vgg16").total.linear_macs
    assert larger.total.parameters == PUBLISHED_PARAMETERS["vgg16"]


def test_classifier_can_be_left_out():
    assert inspected("vgg16", classifier=False).total.parameters == 14_714_688
    assert inspected("vgg16", depth=3).rows[-1].name == "pool3"
    assert inspected("vgg16", depth=3).notes
    assert not inspected("vgg16", depth=3, classifier=False).notes
    resnet = inspected("resnet18", classifier=False)
    assert resnet.total.parameters == 11_176_512
    assert resnet.rows[-1].shape == (512, 7, 7)
    assert inspected("alexnet", classifier=False).total.parameters == 2_469_696


def test_grey_pictures():
    for arch in ("vgg11", "alexnet", "googlenet", "densenet121"):
        colour, grey = inspected(arch), inspected(arch, in_channels=1)
        first = next(row for row in colour.rows if row.parameters)
        bias = first.shape[0] if arch in ("vgg11", "alexnet") else 0
        assert colour.total.parameters - grey.total.parameters == (first.parameters - bias) * 2 // 3
        assert [r.shape for r in grey.rows] == [r.shape for r in colour.rows]


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("resnet50", {}, "unknown network 'resnet50' .did you mean 'resnet18'"),
        ("vgg16", {"image_size": 31}, "image_size=31 is too small for vgg16 with 5 blocks: the minimum is 32"),
        ("vgg16", {"image_size": 7, "depth": 3}, "the minimum is 8"),
        ("vgg16", {"image_size": 7, "output_stride": 8}, "the minimum is 8"),
        ("alexnet", {"image_size": 62}, "image_size=62 is too small for alexnet: the minimum is 63"),
        ("densenet121", {"image_size": 1}, "the minimum is 29"),
        ("resnet18", {"image_size": 0}, "image_size=0 is not possible"),
        ("lenet5", {"image_size": 28}, "image_size=28 is not possible: lenet5 reads pictures of 32x32"),
        ("vgg16", {"unfreeze": "blok5"}, "did you mean 'block5'"),
        ("resnet18", {"unfreeze": "layer4"}, "unfreeze=layer4 applies to VGG networks only"),
        ("resnet18", {"output_stride": 8}, "output_stride=8 applies to VGG networks only"),
        ("vgg16", {"depth": 6}, "depth=6"),
        ("vgg16", {"output_stride": 4}, "output_stride=4 is not possible: use 8, 16, 32"),
        ("vgg16", {"level": "layers"}, "level=layers is not possible: use layer, block"),
        ("alexnet", {"in_channels": 0}, "in_channels=0"),
    ],
)
def test_mistakes_are_one_line_with_a_remedy(arch, options, message):
    with pytest.raises(OptionError, match=message) as caught:
        inspect(arch, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arch", [name for name in ARCHITECTURE_NAMES if "_" in name] + ["alexnet", "googlenet"])
def test_minimum_sizes_are_enough(arch):
    minimum = {"alexnet": 63, "googlenet": 15}.get(arch, 32)
    assert inspected(arch, image_size=minimum).total.parameters == inspected(arch).total.parameters


def test_json_is_one_object_of_plain_values(capsys):
    inspection = inspect("vgg16", level="block", unfreeze="block5", format="json")
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(inspection.as_dict()))
    assert [entry["name"] for entry in printed["rows"]] == [*(f"block{block}" for block in range(1, 6)), "classifier"]
    assert printed["rows"][0]["shape"] == [64, 112, 112]
    assert printed["rows"][0]["status"] == "frozen"
    assert printed["rows"][-1]["stride"] is None
    assert printed["total"]["parameters"] == 138_357_544
    assert printed["total"]["macs"] == 15_470_264_320
    inspect("densenet121", format="json")
    entry = json.loads(capsys.readouterr().out)["rows"][0]
    assert entry["name"] == "features.conv0"
    assert {type(entry[key]) for key in ("parameters", "macs", "activation_bytes", "receptive_field")} == {int}


@pytest.mark.parametrize("columns", ["40", "100"])
def test_table_keeps_every_digit(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    inspection = inspect("vgg16", unfreeze="block5")
    lines = capsys.readouterr().out.splitlines()
    assert "…" not in "".join(lines)
    for costs in inspection.rows:
        line = next(line for line in lines if line.split()[:1] == [costs.name])
        assert " x ".join(map(str, costs.shape)) in line
        assert f" {costs.activation_bytes:,} " in line
        assert f" {costs.receptive_field} " in line
        assert not costs.macs or f" {costs.macs:,} " in line
        assert not costs.parameters or f" {costs.parameters:,} " in line
        assert line.split()[-1] == costs.status or not costs.status
    total = next(line for line in lines if line.split()[:1] == ["total"])
    assert total.split() == ["total", "138,357,544", "15,470,264,320", "114,571,168", "partly"]
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "15.347 G in convolutions, 123.634 M in full connections" in "\n".join(lines)
    assert "3 x 3x3 see 7x7 with 27 C^2 weights; 1 x 7x7 has 49 C^2" in "\n".join(lines)


def test_vgg_needs_no_torch():
    code = (
        "import sys; from vggtransfer.encoder.inspection import inspect; assert 'rich' not in sys.modules;"
        "inspect('vgg16', unfreeze='block5'); inspect('vgg16', format='json');"
        "print([name for name in ('torch', 'torchvision', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stderr.strip() == "[]"

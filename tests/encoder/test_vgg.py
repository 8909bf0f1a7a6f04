import copy
import io
import pickle

import pytest
import timm
import torch
import torchvision
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn

from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import InputError, OptionError

STANDARD = [name for name in ARCHITECTURE_NAMES if name.count("_") == 0 or name.endswith("_bn")]
SMALL = "vgg16_bn_x0_25"


def randomised(encoder: VGGEncoder) -> VGGEncoder:
    """Gives BatchNorm layers statistics of their own; fresh ones would hide a mix-up of scale, shift, mean and var."""
    generator = torch.Generator().manual_seed(7)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return encoder


def peer_state(encoder: VGGEncoder) -> dict[str, torch.Tensor]:
    """The encoder's weights under torchvision's and timm's names."""
    return {
        f"features.{position}.{key}": tensor
        for position, module in enumerate(encoder.trunk.values())
        for key, tensor in module.state_dict().items()
    }


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    scale = theirs.abs().max().item()
    assert scale > 0
    assert (ours - theirs).abs().max().item() <= 1e-5 * scale


@pytest.mark.parametrize("arch", STANDARD)
def test_every_tap_equals_torchvision_and_timm(arch):
    torch.manual_seed(0)
    encoder = randomised(VGGEncoder(arch, weights=None)).eval()
    state = peer_state(encoder)
    torchvision_net = getattr(torchvision.models, arch)(weights=None, init_weights=False).features.eval()
    torchvision_net.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    timm_net = timm.create_model(arch, features_only=True, pretrained=False).eval()
    timm_net.load_state_dict({key.replace(".", "_", 1): value for key, value in state.items()}, strict=True)

    images = torch.rand(2, 3, 45, 64)
    with torch.no_grad():
        ours = encoder.features(images, layers=encoder.architecture.layer_names)
        x = normalised = (images - encoder.mean) / encoder.std
        for name, layer in zip(encoder.architecture.layer_names, torchvision_net, strict=True):
            x = torch.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            assert_close(ours[name], x)
        for tap, theirs in zip(encoder(images), timm_net(normalised), strict=True):
            assert_close(tap, theirs)
    assert encoder.out_channels == tuple(timm_net.feature_info.channels())
    assert encoder.strides == tuple(timm_net.feature_info.reduction())


def test_default_taps_of_vgg16():
    encoder = VGGEncoder("vgg16", weights=None)
    assert encoder.layers == ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3", "pool5")
    assert encoder.out_channels == (64, 128, 256, 512, 512, 512)
    assert encoder.strides == (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("arch", STANDARD)
def test_trunk_has_torchvisions_parameter_count(arch):
    encoder = VGGEncoder(arch, weights=None)
    with torch.device("meta"):
        peer = getattr(torchvision.models, arch)(weights=None, init_weights=False)
    assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in peer.features.parameters())


def test_conv_tap_is_before_relu():
    encoder = VGGEncoder("vgg11", weights=None).eval()
    taps = encoder.features(torch.rand(1, 3, 32, 32), layers=["conv1_1", "relu1_1", "conv3_2", "relu3_2"])
    for block in ("1_1", "3_2"):
        assert taps[f"conv{block}"].min() < 0
        assert torch.equal(taps[f"conv{block}"].relu(), taps[f"relu{block}"])


@pytest.mark.parametrize("arch", [SMALL, "vgg13", "vgg11_lrn"])
def test_hooks_on_any_layer_see_values_and_gradients(arch):
    """What Grad-CAM does: values from a forward hook, gradients from a full backward hook."""
    torch.manual_seed(0)
    encoder = randomised(VGGEncoder(arch, weights=None, depth=2)).eval()
    names = encoder.architecture.layer_names
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    taps = encoder.features(images, layers=names)
    gradients = torch.autograd.grad(taps["pool2"].square().sum(), [taps[name] for name in names])
    for position, (name, gradient) in enumerate(zip(names, gradients, strict=True)):
        seen = {}
        layer = encoder.trunk[name]
        handles = [
            layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.update(before=inputs[0])),
            layer.register_forward_hook(lambda *arguments, seen=seen: seen.update(value=arguments[-1])),
            layer.register_full_backward_pre_hook(lambda _, outer, seen=seen: seen.update(outer=outer[0])),
            layer.register_full_backward_hook(lambda *arguments, seen=seen: seen.update(gradient=arguments[-1][0])),
        ]
        encoder(images)[-1].square().sum().backward()
        for handle in handles:
            handle.remove()
        before = taps[names[position - 1]] if position else (images - encoder.mean) / encoder.std
        assert torch.equal(seen["before"], before), name
        assert torch.equal(seen["value"], taps[name]), name
        assert_close(seen["outer"], gradient)
        assert_close(seen["gradient"], gradient)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_each_kind_of_hook_alone_fires_on_each_layer(kind):
    encoder = VGGEncoder(SMALL, weights=None, depth=2)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    fired = []
    for name, layer in encoder.trunk.items():
        hook = getattr(layer, f"register_{kind}_hook")(lambda *_, name=name: fired.append(name))
        encoder(images)[-1].sum().backward()
        hook.remove()
    assert fired == list(encoder.architecture.layer_names)


def test_hooks_for_all_modules_of_a_program_fire_too():
    encoder = VGGEncoder("vgg11", weights=None)
    seen = []
    with torch.nn.modules.module.register_module_full_backward_hook(lambda module, *_: seen.append(module)):
        images = torch.rand(1, 3, 32, 32, requires_grad=True)
        encoder.features(images, layers=["pool5"])["pool5"].sum().backward()
    assert set(encoder.trunk.values()) <= set(seen)


def test_hooks_may_replace_values_and_layers_may_be_replaced():
    encoder = VGGEncoder("vgg11", weights=None).eval()
    images = torch.rand(1, 3, 32, 32)
    expected = encoder(images)[-1]
    with encoder.trunk["relu3_1"].register_forward_hook(lambda *_: None):
        assert torch.equal(encoder(images)[-1], expected)
    with encoder.trunk["relu3_1"].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output)):
        assert not torch.allclose(encoder(images)[-1], expected)
    encoder.trunk["relu3_1"] = nn.LeakyReLU()
    assert encoder.features(images, layers=["relu3_1"])["relu3_1"].min() < 0


def test_relu_overwrites_what_nobody_holds():
    encoder = VGGEncoder("vgg11", weights=None, layers=["relu1_1"]).eval()
    written = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            written.append(function.__name__)
            return function(*arguments, **(keywords or {}))

    with torch.no_grad(), Recorder():
        encoder(torch.rand(1, 3, 32, 32))
    assert "relu_.default" in written


def test_forward_hook_on_a_conv_layer_keeps_the_value_before_relu():
    encoder = VGGEncoder("vgg11", weights=None).eval()
    held = []
    encoder.trunk["conv2_1"].register_forward_hook(lambda module, inputs, output: held.append(output))
    images = torch.rand(1, 3, 32, 32)
    encoder(images)
    assert torch.equal(held[0], encoder.features(images, layers=["conv2_1"])["conv2_1"])
    assert held[0].min() < 0


def test_features_runs_no_layer_past_the_deepest_tap():
    encoder = VGGEncoder(SMALL, weights=None).eval()
    ran = []
    for name, module in encoder.trunk.items():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    encoder.features(torch.rand(1, 3, 32, 32), layers=["conv3_2", "relu1_1"])
    assert ran[-1] == "conv3_2"
    assert not any("4_" in name for name in ran)


def test_layers_come_in_the_order_asked_for():
    encoder = VGGEncoder(SMALL, weights=None, layers=["relu3_1", "conv1_2", "pool4"]).eval()
    images = torch.rand(2, 3, 64, 64)
    assert [tuple(tap.shape) for tap in encoder(images)] == [(2, 64, 16, 16), (2, 16, 64, 64), (2, 128, 4, 4)]
    assert encoder.out_channels == (64, 16, 128)
    assert encoder.strides == (4, 1, 16)


def test_depth_builds_only_that_many_blocks():
    shallow, full = VGGEncoder("vgg16", weights=None, depth=3), VGGEncoder("vgg16", weights=None)
    assert not any("4_" in key or "5_" in key for key in shallow.state_dict())
    assert shallow.layers == ("relu1_2", "relu2_2", "relu3_3", "pool3")
    shallow.load_state_dict({key: value for key, value in full.state_dict().items() if key in shallow.state_dict()})
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(shallow(images)[3], full.features(images, layers=["pool3"])["pool3"])


@pytest.mark.parametrize("arch", ARCHITECTURE_NAMES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride_sizes_for_all_architectures(arch, output_stride):
    with torch.device("meta"):
        encoder = VGGEncoder(arch, weights=None, output_stride=output_stride).eval()
        taps = encoder(torch.empty(1, 3, 96, 160))
    for tap, channels, stride in zip(taps, encoder.out_channels, encoder.strides, strict=True):
        assert tap.shape == (1, channels, 96 // stride, 160 // stride)
    assert encoder.strides[-1] == output_stride


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(64, 128), (96, 160)])
def test_dilation_keeps_the_weights_and_the_values(output_stride, size):
    torch.manual_seed(0)
    strided = randomised(VGGEncoder("vgg11_bn", weights=None)).eval()
    dilated = VGGEncoder("vgg11_bn", weights=None, output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    images = torch.rand(1, 3, *size)
    with torch.no_grad():
        for name, ours, theirs, stride in zip(
            strided.layers, dilated(images), strided(images), strided.strides, strict=True
        ):
            step = max(1, stride // output_stride)
            assert ours.shape[2] == size[0] // min(stride, output_stride), name
            assert_close(ours[..., ::step, ::step], theirs)


def test_dilation_of_odd_maps_keeps_the_values_away_from_two_borders():
    torch.manual_seed(0)
    strided = randomised(VGGEncoder("vgg11_bn", weights=None)).eval()
    dilated = VGGEncoder("vgg11_bn", weights=None, output_stride=8).eval()
    dilated.load_state_dict(strided.state_dict())
    images = torch.rand(1, 3, 72, 72)  # pool4 sees a map of 9x9 and drops the last row and column
    with torch.no_grad():
        ours, theirs = (encoder.features(images, layers=["pool4", "relu5_2"]) for encoder in (dilated, strided))
    assert_close(ours["pool4"][..., :8:2, :8:2], theirs["pool4"])
    inner, outer = ours["relu5_2"][..., :8:2, :8:2], theirs["relu5_2"]
    assert_close(inner[..., :2, :2], outer[..., :2, :2])  # two convolutions reach two steps
    assert not torch.allclose(inner, outer)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(1, 3, 32, 32) * 255, r"\[0, 255\].*divide by 255"),
        (torch.rand(1, 3, 32, 32) * 2 - 1, r"\[-1, 1\].*\(images \+ 1\) / 2"),
        (torch.randn(1, 3, 32, 32) * 1.5, "normalize=False"),
        (torch.full((1, 3, 32, 32), torch.nan), "NaN"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8"),
        (torch.rand(3, 32, 32), r"images\[None\]"),
        (torch.rand(1, 32, 32, 3), "channels come before"),
        (torch.rand(1, 1, 32, 32), "in_channels=1"),
        (torch.rand(1, 3, 31, 64), "minimum is 32x32"),
    ],
)
def test_wrong_pictures_are_refused_with_the_remedy(images, words):
    with pytest.raises(InputError, match=words):
        VGGEncoder(SMALL, weights=None)(images)


def test_range_is_checked_on_the_first_batch_only():
    encoder = VGGEncoder(SMALL, weights=None).eval()
    encoder(torch.rand(1, 3, 32, 32))
    encoder(torch.rand(1, 3, 32, 32) * 255)
    with pytest.raises(InputError):
        copy.deepcopy(VGGEncoder(SMALL, weights=None))(torch.rand(1, 3, 32, 32) * 255)


def test_minimum_size_depends_on_the_deepest_layer_that_runs():
    encoder = VGGEncoder(SMALL, weights=None).eval()
    assert encoder.features(torch.rand(1, 3, 16, 16), layers=["relu5_3"])["relu5_3"].shape[2:] == (1, 1)
    assert VGGEncoder(SMALL, weights=None, output_stride=8).eval()(torch.rand(1, 3, 8, 8))[-1].shape[2:] == (1, 1)
    with pytest.raises(InputError, match="minimum is 16x16"):
        encoder.features(torch.rand(1, 3, 15, 15), layers=["relu5_3"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"arch": "vgg17"}, "vgg17.*did you mean 'vgg1"),
        ({"layers": ["relu5_4"]}, "relu5_4.*did you mean"),
        ({"layers": "relu5_3"}, r"write layers=\['relu5_3'\]"),
        ({"layers": []}, "at least one"),
        ({"depth": 6}, "depth=6"),
        ({"depth": 3, "layers": ["relu4_1"]}, "3 blocks has no layer 'relu4_1'"),
        ({"output_stride": 4}, "output_stride=4"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"unfreeze": "block6"}, "block6"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(OptionError, match=words):
        VGGEncoder(**{"arch": "vgg16", "weights": None, **arguments})


def test_gradients_reach_the_picture_through_a_frozen_encoder():
    encoder = VGGEncoder(SMALL, weights=None, unfreeze="none")
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    encoder(images)[-1].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_state_dict_deepcopy_and_pickle_keep_everything():
    encoder = randomised(VGGEncoder(SMALL, weights=None, unfreeze="block5", layers=["relu2_2", "pool5"])).eval()
    images = torch.rand(1, 3, 32, 32)
    expected = encoder(images)
    loaded = VGGEncoder(SMALL, weights=None, layers=["relu2_2", "pool5"]).eval()
    loaded.load_state_dict(encoder.state_dict())
    saved = io.BytesIO()
    torch.save(encoder.state_dict(), saved)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), loaded):
        for ours, theirs in zip(other(images), expected, strict=True):
            assert torch.equal(ours, theirs)
        assert other.eval().trunk.train()["bn4_1"].training is (other is loaded)


def test_compiles_exports_and_scripts():
    torch.manual_seed(0)
    encoder = randomised(VGGEncoder(SMALL, weights=None, layers=["conv2_1", "relu2_1", "pool5"])).eval()
    images = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        expected = encoder(images)
        exported = torch.export.export(encoder, (images,)).module()
        compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
        with pytest.warns(FutureWarning, match="deprecated"):  # TorchScript is on its way out, but still in use
            scripted = torch.jit.script(encoder)
        for other in (exported, compiled, scripted):
            for ours, theirs in zip(other(images), expected, strict=True):
                assert_close(ours, theirs)


def test_channels_last_and_bfloat16_autocast():
    torch.manual_seed(0)
    encoder = randomised(VGGEncoder(SMALL, weights=None)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(images)
        fast = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
        ours = fast(images.to(memory_format=torch.channels_last))
        assert ours[2].is_contiguous(memory_format=torch.channels_last)
        for tap, theirs in zip(ours, expected, strict=True):
            assert_close(tap, theirs)
        with torch.autocast("cpu", torch.bfloat16):
            low = fast(images.to(memory_format=torch.channels_last))
        assert low[-1].dtype == torch.bfloat16
        assert (low[-1].float() - expected[-1]).abs().max() <= 0.05 * expected[-1].abs().max()
        half = copy.deepcopy(encoder).to(torch.bfloat16)(images)
        assert half[-1].dtype == torch.bfloat16


def test_is_the_encoder_of_smps_unet_decoder():
    encoder = VGGEncoder("vgg11_bn", weights=None)
    decoder = UnetDecoder(encoder_channels=encoder.out_channels, decoder_channels=(64, 32, 16, 16, 8), n_blocks=5)
    images = torch.rand(2, 3, 64, 96)
    mask = decoder(encoder(images))
    assert mask.shape == (2, 8, 64, 96)
    mask.mean().backward()
    assert encoder.trunk["conv1_1"].weight.grad.abs().sum() > 0


def test_papers_other_two_configurations():
    encoder = VGGEncoder("vgg11_lrn", weights=None).eval()
    images = torch.rand(1, 3, 32, 32)
    taps = encoder.features(images, layers=["relu1_1", "lrn1_1"])
    # Krizhevsky et al. 2012: b_i = a_i / (k + alpha * sum of the squares of 5 neighbouring channels) ** beta
    squares = torch.nn.functional.pad(taps["relu1_1"].double() ** 2, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    expected = taps["relu1_1"].double() / (2 + 1e-4 * squares) ** 0.75
    assert torch.allclose(taps["lrn1_1"].double(), expected, rtol=1e-5)
    kernels = {
        name: module.kernel_size
        for name, module in VGGEncoder("vgg16_1x1", weights=None).trunk.items()
        if isinstance(module, nn.Conv2d)
    }
    assert kernels["conv3_3"] == kernels["conv4_3"] == kernels["conv5_3"] == (1, 1)
    assert sum(kernel == (3, 3) for kernel in kernels.values()) == 10

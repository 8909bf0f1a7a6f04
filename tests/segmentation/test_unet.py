from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from vggtransfer import VGGEncoder
from vggtransfer.errors import InputError, OptionError, WeightsError
from vggtransfer.segmentation.deeplab import VGGDeepLab
from vggtransfer.segmentation.fcn import VGGFCN
from vggtransfer.segmentation.unet import VGGUNet

SMALL = "vgg16_bn_x0_25"


def lively(model: nn.Module) -> nn.Module:
    """Gives BatchNorm something to do in evaluation, and everything that starts with zeros a value."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 5)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.randn(module.num_features, generator=generator))
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    return model.eval()


@pytest.fixture(scope="module")
def peer() -> nn.Module:
    """smp's U-Net on VGG16."""
    torch.manual_seed(0)
    return lively(smp.Unet("vgg16", encoder_weights=None, classes=3))


@pytest.fixture(scope="module")
def encoder(peer: nn.Module) -> VGGEncoder:
    """Ours with the weights of smp's."""
    encoder = VGGEncoder("vgg16", weights=None, normalize=False)
    _copy_convolutions(encoder.trunk, peer.encoder)
    return encoder.eval()


def _copy_convolutions(to: nn.Module, of: nn.Module) -> None:
    ours, theirs = ([m for m in network.modules() if isinstance(m, nn.Conv2d)] for network in (to, of))
    for our, their in zip(ours, theirs, strict=True):
        our.load_state_dict(their.state_dict())


def test_encoder_in_smps_decoder_is_smps_network(peer: nn.Module, encoder: VGGEncoder) -> None:
    decoder = UnetDecoder(
        encoder_channels=encoder.out_channels,
        decoder_channels=(256, 128, 64, 32, 16),
        n_blocks=5,
        add_center_block=True,
    ).eval()
    decoder.load_state_dict(peer.decoder.state_dict())
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        expected = peer(images)
        found = peer.segmentation_head(decoder(encoder(images)))
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_without_its_finest_skip_it_is_smps_network(peer: nn.Module, encoder: VGGEncoder) -> None:
    model = VGGUNet("vgg16", classes=3, weights=None, full_resolution_skip=False, normalize=False)
    model.encoder.load_state_dict(encoder.state_dict())
    for block, theirs in zip(model.decoder.center, peer.decoder.center, strict=True):
        block.conv.load_state_dict({"weight": theirs[0].weight})
        block.norm.load_state_dict(theirs[1].state_dict())
    for stage, block in zip(model.decoder.stages, peer.decoder.blocks, strict=True):
        below, skip = stage.join.below, stage.join.skip
        parts = block.conv1[0].weight.split([below.in_channels, skip.in_channels if skip else 0], dim=1)
        below.load_state_dict({"weight": parts[0]})
        if skip:
            skip.load_state_dict({"weight": parts[1]})
        stage.join.norm.load_state_dict(block.conv1[1].state_dict())
        stage.refine.conv.load_state_dict({"weight": block.conv2[0].weight})
        stage.refine.norm.load_state_dict(block.conv2[1].state_dict())
    model.decoder.head.load_state_dict(peer.segmentation_head[0].state_dict())
    images = torch.rand(2, 3, 32, 64)
    with torch.inference_mode():
        expected = peer(images)
        torch.testing.assert_close(model.eval()(images), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("normalization", ["batch", "none"])
def test_any_size_answers_for_the_pictures_own_pixels(normalization: str) -> None:
    torch.manual_seed(0)
    model = lively(VGGUNet(SMALL, classes=2, weights=None, normalization=normalization))
    images = torch.rand(1, 3, 45, 33)
    with torch.inference_mode():
        logits = model(images)
        whole = model(F.pad(images, (0, 31, 0, 19), mode="replicate"))
        assert logits.shape == (1, 2, 45, 33)
        assert torch.equal(logits, whole[..., :45, :33])
        assert model(torch.rand(1, 3, 1, 7)).shape == (1, 2, 1, 7)


def test_finest_skip_reaches_the_scores() -> None:
    model = VGGUNet(SMALL, classes=2, weights=None)
    assert model.encoder.layers[0] == "relu1_2"
    assert [stage.join.skip.in_channels for stage in model.decoder.stages] == [128, 128, 64, 32, 16]
    assert [stage.refine.conv.out_channels for stage in model.decoder.stages] == [64, 32, 16, 16, 16]
    plain = VGGUNet(SMALL, classes=2, weights=None, full_resolution_skip=False, decoder_channels=[9, 8, 7, 6, 5])
    assert plain.encoder.layers[0] == "relu2_2"
    assert plain.decoder.stages[-1].join.skip is None
    assert plain.decoder.head.in_channels == 5


def test_a_step_changes_only_what_the_policy_frees() -> None:
    torch.manual_seed(0)
    model = VGGUNet(SMALL, classes=3, weights="embedded", unfreeze="block5").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(torch.rand(2, 3, 32, 32))
    F.cross_entropy(logits, torch.randint(0, 3, (2, 32, 32))).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith(("decoder.", "encoder.trunk.conv5", "encoder.trunk.bn5")) for name in changed)
    assert {"decoder.head.weight", "encoder.trunk.conv5_1.weight", "decoder.stages.4.join.skip.weight"} <= changed
    # At full resolution: the skip, of both blocks of the last stage what goes into BatchNorm, and of the second what
    # ReLU returns. Of the frozen layers nothing else, of the upsampled map and the concatenation nothing at all.
    large = {tensor.data_ptr(): tensor.shape[1] for tensor in saved if tensor.shape[2:] == (32, 32)}
    assert list(large.values()) == [16, 16, 16, 16]


@pytest.mark.parametrize(
    "build",
    [
        lambda: VGGUNet(SMALL, classes=2, weights=None),
        lambda: VGGFCN(SMALL, classes=2, weights=None, hidden_channels=8),
        lambda: VGGDeepLab(SMALL, classes=2, weights=None, hidden_channels=8),
    ],
)
def test_all_networks_compile_export_copy_and_pickle(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = lively(build())
    images = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        expected = model(images)
        assert expected.std() > 0
        fresh = build().eval()
        fresh.load_state_dict(model.state_dict())
        for other in (
            torch.export.export(model, (images,)).module(),
            torch.compile(model, backend="eager", fullgraph=True),
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
            fresh,
        ):
            torch.testing.assert_close(other(images), expected)


@pytest.mark.parametrize("example", [(64, 96), (40, 50)])
def test_an_exported_network_takes_pictures_of_any_size(example: tuple[int, int]) -> None:
    model = VGGUNet(SMALL, classes=2, weights=None).eval()
    sizes = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    exported = torch.export.export(model, (torch.rand(2, 3, *example),), dynamic_shapes=(sizes,)).module()
    for shape in ((3, 3, 33, 64), (2, 3, 64, 64)):
        images = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(exported(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": 0}, "classes=0"),
        ({"classes": 2, "normalization": "group"}, "use 'batch' or 'none'"),
        ({"classes": 2, "decoder_channels": [8, 8]}, "give 5"),
        ({"classes": 2, "decoder_channels": [8, 8, 8, 8, 0]}, "give 5"),
        ({"classes": 2, "unfreeze": "block6"}, "block6"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        VGGUNet(SMALL, weights=None, **arguments)


def test_wrong_weights_and_pictures_are_refused() -> None:
    with pytest.raises(WeightsError, match="torchvision"):
        VGGUNet(SMALL, classes=2, weights="torchvision")
    model = VGGUNet(SMALL, classes=2, weights=None)
    with pytest.raises(InputError, match="images\\[None\\]"):
        model(torch.rand(3, 32, 32))
    with pytest.raises(InputError, match="divide by 255"):
        model(torch.rand(1, 3, 32, 33) * 255)
    with pytest.raises(InputError, match="convert them to float"):
        model(torch.zeros(1, 3, 33, 33, dtype=torch.uint8))

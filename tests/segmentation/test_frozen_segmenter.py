from __future__ import annotations

import pytest
import torch
from torch import nn

from vggtransfer.errors import InputError
from vggtransfer.segmentation.deeplab import VGGDeepLab
from vggtransfer.segmentation.fcn import VGGFCN
from vggtransfer.segmentation.frozen_segmenter import FrozenSegmenter
from vggtransfer.segmentation.segmenter import Segmenter
from vggtransfer.segmentation.unet import VGGUNet

SMALL = "vgg16_bn_x0_25"
CPU = torch.device("cpu")


def build(name: str) -> Segmenter:
    """A network whose BatchNorm and scoring layers do something."""
    torch.manual_seed(0)
    match name:
        case "unet":
            model: Segmenter = VGGUNet(SMALL, classes=3, weights="embedded")
        case "unet of vgg11, smallest":
            model = VGGUNet("vgg11", classes=1, weights=None, full_resolution_skip=False, normalization="none")
        case "fcn":
            model = VGGFCN(SMALL, classes=3, weights="embedded", hidden_channels=16)
            for layer in model.decoder.scores:
                nn.init.normal_(layer.weight)
        case _:
            model = VGGDeepLab(SMALL, classes=3, weights="embedded", hidden_channels=16)
    for module in model.decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return model.eval()


@pytest.mark.parametrize("name", ["unet", "unet of vgg11, smallest", "fcn", "deeplab"])
def test_answers_as_the_network_does(name: str) -> None:
    model = build(name)
    pictures = torch.randint(0, 256, (3, 3, 45, 52), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model(pictures / 255)
    scale = expected.abs().max().item()
    frozen = FrozenSegmenter(model, device=CPU, compute_type=torch.float32)
    for given in (pictures, pictures / 255):
        torch.testing.assert_close(frozen(given), expected, rtol=0, atol=2e-5 * scale)
    low = FrozenSegmenter(model, device=CPU, compute_type=torch.bfloat16)(pictures)
    assert low.dtype == torch.float32
    assert 0 < (low - expected).abs().max() < 0.04 * scale


def test_batch_norm_of_several_processes_is_folded_as_well() -> None:
    model = build("unet")
    pictures = torch.rand(1, 3, 32, 32)
    expected = FrozenSegmenter(model, device=CPU, compute_type=torch.float32)(pictures)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    found = FrozenSegmenter(converted, device=CPU, compute_type=torch.float32)(pictures)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


def test_the_network_stays_as_it_is_and_may_change_afterwards() -> None:
    model = build("unet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pictures = torch.rand(1, 3, 32, 32)
    frozen = FrozenSegmenter(model, device=CPU, compute_type=torch.float32)
    first = frozen(pictures)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    assert torch.equal(frozen(pictures), first)


def test_wrong_pictures_are_refused() -> None:
    frozen = FrozenSegmenter(build("unet"), device=CPU, compute_type=torch.float32)
    with pytest.raises(InputError, match="expected 3 channels"):
        frozen(torch.rand(1, 1, 32, 32))

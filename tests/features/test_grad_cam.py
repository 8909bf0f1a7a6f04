from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.classification.model import Task, VGGClassifier
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError
from vggtransfer.features.grad_cam import grad_cam, last_activation

CLASSES = ("a", "b", "c", "d")


def classifier(arch: str, *, unfreeze: str = "none", head: str = "linear") -> VGGClassifier:
    torch.manual_seed(3)
    encoder = VGGEncoder(arch, weights=None, layers=["pool5"], unfreeze=unfreeze)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: nothing is 0 or 1
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5)
    return VGGClassifier(encoder, Task(CLASSES, 64, 1.0, head, 0.5)).eval()  # type: ignore[arg-type]


def pictures(count: int = 3, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(7))


def by_the_formula(model: VGGClassifier, images: Tensor, layer: str, classes: list[int]) -> Tensor:
    """Equations 1 and 2 in float64, one picture and one map at a time, with a forward pass of its own."""
    model = copy.deepcopy(model).double().eval()
    maps = []
    for image, index in zip(images.double(), classes, strict=True):
        x = (image[None] - model.encoder.mean) / model.encoder.std
        for name, module in model.encoder.trunk.items():
            x = F.relu(x) if isinstance(module, nn.ReLU) else module(x)
            if name == layer:
                x = activations = x.detach().requires_grad_()
        model.head(x)[0, index].backward()
        assert activations.grad is not None
        total = torch.zeros_like(activations[0, 0])
        for channel in range(activations.shape[1]):
            alpha = activations.grad[0, channel].sum() / activations.grad[0, channel].numel()
            total = total + alpha * activations[0, channel].detach()
        maps.append(torch.where(total > 0, total, 0.0))
    return torch.stack(maps)


@pytest.mark.parametrize("layer", ["conv5_3", "bn4_2", "relu5_3", "pool5", "conv1_1"])
def test_agrees_with_the_formula_at_any_layer(layer: str) -> None:
    model, images = classifier("vgg16_bn_x0_25"), pictures(2, 32)
    found = grad_cam(model, model.encoder, images, layer=layer)
    expected = by_the_formula(model, images, layer, found.classes.tolist())
    assert expected.max() > 0
    assert found.layer == layer
    assert found.maps.dtype == torch.float32
    torch.testing.assert_close(found.maps.double(), expected, rtol=1e-3, atol=1e-5 * expected.max().item())


@pytest.mark.parametrize(
    ("arch", "head", "layer"), [("vgg11_lrn", "linear", "lrn1_1"), ("vgg16_bn_x0_25", "mlp", "relu4_2")]
)
def test_agrees_with_the_formula_for_chosen_classes(arch: str, head: str, layer: str) -> None:
    model, images = classifier(arch, head=head, unfreeze="all"), pictures(2, 32)
    for classes in ([0, 3], [2, 1]):
        found = grad_cam(model, model.encoder, images, layer=layer, classes=torch.tensor(classes))
        expected = by_the_formula(model, images, layer, classes)
        assert found.classes.tolist() == classes
        torch.testing.assert_close(found.maps.double(), expected, rtol=1e-3, atol=1e-5 * expected.max().item())


def test_asks_about_the_predicted_class_in_the_last_activation() -> None:
    model, images = classifier("vgg16_bn_x0_25"), pictures()
    found = grad_cam(model, model.encoder, images)
    with torch.no_grad():
        scores = model(images)
    assert found.layer == last_activation(model.encoder) == "relu5_3"
    assert found.maps.shape == (3, 2, 2)
    assert torch.equal(found.classes, scores.argmax(dim=1))
    torch.testing.assert_close(found.scores, scores)
    assert not found.scores.requires_grad
    assert last_activation(VGGEncoder("vgg11", weights=None, depth=3)) == "relu3_2"


def red_and_blue() -> tuple[VGGClassifier, Tensor]:
    """A network that only passes colours on, classes `red` and `blue`, and a picture with a patch of each."""
    encoder = VGGEncoder("vgg11", weights=None, layers=["pool5"], unfreeze="none", normalize=False)
    for module in encoder.trunk.values():
        if isinstance(module, nn.Conv2d):
            module.weight.data.zero_()
            for channel in range(3):
                module.weight.data[channel, channel, 1, 1] = 1.0
    model = VGGClassifier(encoder, Task(("red", "blue"), 128, 1.0, "linear", 0.0)).eval()
    linear = model.head.get_submodule("linear")
    assert isinstance(linear, nn.Linear)
    linear.weight.data.zero_()
    linear.weight.data[0, 0] = linear.weight.data[1, 2] = 1.0
    image = torch.zeros(1, 3, 128, 128)
    image[0, 0, :64, :32] = 1.0
    image[0, 2, 96:, 64:] = 0.5
    return model, image


def test_lights_up_where_the_class_is() -> None:
    model, image = red_and_blue()
    # relu5_2 has 8 x 8 places of 16 pixels.
    red, blue = (grad_cam(model, model.encoder, image, classes=torch.tensor([index])) for index in (0, 1))
    expected = torch.zeros(8, 8)
    expected[:4, :2] = 1.0
    torch.testing.assert_close(red.relative_maps[0], expected)
    expected = torch.zeros(8, 8)
    expected[6:, 4:] = 1.0
    torch.testing.assert_close(blue.relative_maps[0], expected)
    assert red.maps.max() > blue.maps.max()  # before they are made comparable, half the blue is half the evidence


def test_nothing_speaks_for_the_class() -> None:
    model, image = red_and_blue()
    image[0, 2] = 0.0
    found = grad_cam(model, model.encoder, image, classes=torch.tensor([1]))
    assert found.relative_maps.abs().max() == 0


def test_pictures_of_a_batch_do_not_mix() -> None:
    model, images = classifier("vgg16_bn_x0_25"), pictures()
    together = grad_cam(model, model.encoder, images, layer="relu4_3")
    for number in range(3):
        alone = grad_cam(model, model.encoder, images[number : number + 1], layer="relu4_3")
        torch.testing.assert_close(alone.maps[0], together.maps[number])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("unfreeze", ["none", "block5", "all"])
def test_works_under_any_settings_and_leaves_no_trace(unfreeze: str, context: type) -> None:
    model = classifier("vgg16_bn_x0_25", unfreeze=unfreeze)
    expected = grad_cam(model, model.encoder, pictures())
    model.train()
    model.head.get_submodule("dropout").eval()  # a mode of its own
    before = copy.deepcopy(model.state_dict())
    settings = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    with context():
        found = grad_cam(model, model.encoder, pictures() * 1.0)
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
        assert torch.is_grad_enabled() == (context is torch.enable_grad)
    torch.testing.assert_close(found.maps, expected.maps)
    assert [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()] == settings
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_a_model_made_under_inference_mode() -> None:
    expected = grad_cam((model := classifier("vgg16_bn_x0_25", unfreeze="all")), model.encoder, pictures())
    with torch.inference_mode():
        model = classifier("vgg16_bn_x0_25", unfreeze="all")
    assert next(model.parameters()).is_inference()
    torch.testing.assert_close(grad_cam(model, model.encoder, pictures()).maps, expected.maps)
    assert next(model.parameters()).is_inference()


def test_no_hook_stays_after_an_error() -> None:
    model = classifier("vgg16_bn_x0_25")
    with pytest.raises(Exception, match="expected a batch"):
        grad_cam(model, model.encoder, pictures()[0])
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_cannot_be_asked() -> None:
    model = classifier("vgg16_bn_x0_25")
    with pytest.raises(OptionError, match=r"no layer 'relu5_4' .*did you mean 'relu5_3'"):
        grad_cam(model, model.encoder, pictures(), layer="relu5_4")

    class Shallow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = model.encoder
            self.linear = nn.Linear(64, 2)

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.linear(self.encoder.features(images, layers=["pool3"])["pool3"].mean(dim=(2, 3)))
            return scores

    shallow = Shallow()
    assert grad_cam(shallow, shallow.encoder, pictures(), layer="pool3").maps.shape == (3, 4, 4)
    with pytest.raises(OptionError, match="'relu4_1' has no part in the scores"):
        grad_cam(shallow, shallow.encoder, pictures(), layer="relu4_1")

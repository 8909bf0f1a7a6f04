from __future__ import annotations

import pytest
import torch

from vggtransfer.classification.model import Task, VGGClassifier
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.features.frozen_prefix import (
    FrozenPrefix,
    Suffix,
    frozen_length,
    layer_macs,
    length_at_stride,
    prefix_digest,
)

CPU = torch.device("cpu")


def classifier(arch: str = "vgg11_bn", head: str = "linear", dropout: float = 0.5) -> VGGClassifier:
    torch.manual_seed(0)
    encoder = VGGEncoder(arch, weights=None, layers=["pool5"])
    return VGGClassifier(encoder, Task(("a", "b"), 32, 1.0, head, dropout)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "head", "first"),
    [
        ("none", "linear", "head.dropout"),
        ("none", "mlp", "head.hidden"),
        ("none", "vgg", "head.fc6"),
        ("block5", "linear", "conv5_1"),
        ("bn4_2", "linear", "bn4_2"),
        ("conv3_1,block5", "linear", "conv3_1"),
        ("all", "linear", "conv1_1"),
    ],
)
def test_the_cut_is_before_the_first_layer_that_trains_or_draws(policy: str, head: str, first: str) -> None:
    model = classifier(head=head)
    model.encoder.unfreeze(policy)
    assert model.layers()[frozen_length(model)][0] == first


@pytest.mark.parametrize("arch", ["vgg11", "vgg16_bn_x0_25", "vgg11_lrn"])
@pytest.mark.parametrize("policy", ["none", "block5", "conv3_1"])
def test_prefix_and_suffix_are_the_model(arch: str, policy: str) -> None:
    model = classifier(arch)
    model.encoder.unfreeze(policy)
    pictures = torch.randint(0, 256, (3, 3, 47, 47), dtype=torch.uint8)
    length = frozen_length(model)
    prefix = FrozenPrefix(model, length, device=CPU, compute_type=torch.float32)
    maps = prefix(pictures)
    assert tuple(maps.shape[1:]) == prefix.shape(47)
    with torch.inference_mode():
        torch.testing.assert_close(Suffix(model, length)(maps), model(pictures / 255), rtol=1e-5, atol=1e-6)


def test_gradients_of_the_suffix_are_those_of_the_model() -> None:
    model = classifier()
    model.encoder.unfreeze("block5")
    model.train()
    model.head.eval()  # no dropout
    pictures = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    length = frozen_length(model)
    maps = FrozenPrefix(model, length, device=CPU, compute_type=torch.float32)(pictures).clone()
    gradients = []
    for run in (lambda: model(pictures / 255), lambda: Suffix(model, length)(maps)):
        model.zero_grad()
        run().square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    whole, rest = gradients
    assert whole.keys() == rest.keys()
    assert {name.split(".")[2] for name in whole if "trunk" in name} == {"conv5_1", "bn5_1", "conv5_2", "bn5_2"}
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(rest[name], gradient, rtol=1e-4, atol=1e-6 * largest)


def test_the_suffix_leaves_the_maps_alone() -> None:
    model = classifier("vgg11")
    maps = torch.randn(2, 64, 32, 32)
    before = maps.clone()
    with torch.no_grad():
        Suffix(model, 1)(maps)  # begins with a ReLU
    assert torch.equal(maps, before)


def test_the_digest_follows_what_the_prefix_answers_and_nothing_else() -> None:
    model = classifier()
    digest = prefix_digest(model, 10)
    with torch.no_grad():
        model.head.get_submodule("linear").weight.add_(1)
        model.encoder.trunk["conv5_1"].weight.add_(1)
    assert prefix_digest(model, 10) == digest
    assert prefix_digest(model, 9) != digest
    model.encoder.trunk["bn1_1"].running_mean[0] += 1
    assert prefix_digest(model, 10) != digest
    other = classifier()
    other.encoder.mean += 0.1
    assert prefix_digest(other, 10) != digest


def test_stride_limits_the_cut() -> None:
    model = classifier()
    everything = len(model.layers())
    assert model.layers()[length_at_stride(model, everything, 16) - 1][0] == "relu5_2"
    assert model.layers()[length_at_stride(model, 5, 16) - 1][0] == model.layers()[4][0]


def test_macs_are_those_of_the_paper() -> None:
    model = classifier("vgg16")
    macs = dict(zip([name for name, _ in model.layers()], layer_macs(model, 224), strict=True))
    assert macs["conv1_1"] == 86_704_128
    assert sum(macs.values()) == 15_346_630_656 + 512 * 2
    assert macs["head.linear"] == 1024

"""The networks of a comparison: built, initialised alike, and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vggtransfer.classification.head import load_pretrained_layers
from vggtransfer.classification.head_names import PlainHeadName
from vggtransfer.classification.model import Task, VGGClassifier, save_classifier
from vggtransfer.data.transforms import default_crop_fraction
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, architecture
from vggtransfer.encoder.layer_costs import classifier_costs, total_costs, trunk_costs
from vggtransfer.encoder.other_networks import minimum_size, network_costs
from vggtransfer.encoder.trunk_files import FileHeader, weights_digest, write_weights
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.encoder.weights import load_weights
from vggtransfer.encoder.whole_network import WholeNetwork, fetch_pretrained
from vggtransfer.features.evaluation_mode import evaluation_mode
from vggtransfer.training.contract import Backbone

Initialisation = Literal["he", "glorot", "torch"]


@dataclass(frozen=True)
class Network:
    """A network ready to train.

    Attributes:
        model: Pictures [batch, 3, height, width] in [0, 1] to logits [batch, classes].
        backbone: The part of it that the training loop calls so.
        pretrained_layers: Layers of its head with pretrained weights, by name.
    """

    model: nn.Module
    backbone: Backbone
    pretrained_layers: dict[str, tuple[nn.Parameter, ...]]


@dataclass(frozen=True)
class PublishedCosts:
    """A network as published: 1000 classes at 224x224, lenet5 10 classes of grey pictures at 32x32.

    Attributes:
        image_size: Side of the pictures in pixels.
        parameters: Weights and biases, BatchNorm's included.
        macs: Multiply-accumulates for one picture.
        receptive_field: Pixels along one axis that a unit of the last map sees, before all units are pooled or
            flattened into one; padding included.
    """

    image_size: int
    parameters: int
    macs: int
    receptive_field: int


def smallest_pictures(arch: str) -> int:
    """The side in pixels of the smallest pictures a network takes."""
    return 32 if arch in ARCHITECTURE_NAMES else minimum_size(arch)


def prefetch(arch: str, head: PlainHeadName) -> None:
    """Downloads the default weights of a network if they are not there yet.

    Raises:
        WeightsError: They do not exist, or cannot be fetched or verified.
    """
    if arch in ARCHITECTURE_NAMES:
        load_weights(arch, "default", classifier="if present" if head == "vgg" else False)
    else:
        fetch_pretrained(arch)


def build(
    arch: str,
    *,
    classes: tuple[str, ...],
    image_size: int,
    weights: str,
    head: PlainHeadName,
    initialisation: Initialisation,
) -> Network:
    """Builds a network with a new output layer; random numbers come from torch's global generator.

    A VGG gets the head that is asked for: without dropout, and `vgg` with that of the paper, 0.5. The others keep their
    own linear layers and dropout.

    Args:
        arch: The network.
        classes: Class names.
        image_size: Side of the pictures of VGG networks, which keep it with their weights.
        weights: `"default"` or `"none"`.
        head: Of VGG networks.
        initialisation: Of random weights, see `initialise`.
    """
    if arch not in ARCHITECTURE_NAMES:
        whole = WholeNetwork(arch, classes=len(classes), weights=weights)
        if weights == "none":
            initialise(whole, initialisation)
        layers = {name: tuple(layer.parameters()) for name, layer in whole.pretrained_layers.items()}
        return Network(whole, whole, layers)
    # Before the encoder, so that a download serves both. For other heads it would be in vain, and half a gigabyte.
    wanted = weights != "none" and head == "vgg"
    classifier = load_weights(arch, weights, classifier="if present").classifier if wanted else {}
    encoder = VGGEncoder(arch, weights=weights, layers=["pool5"])
    crop_fraction, dropout = default_crop_fraction(image_size), 0.5 if head == "vgg" else 0.0
    model = VGGClassifier(encoder, Task(classes, image_size, crop_fraction, head, dropout))
    filled: tuple[str, ...] = ()
    if weights == "none":
        initialise(model, initialisation)
    elif head == "vgg":
        filled = load_pretrained_layers(model.head, classifier)
    return Network(model, encoder, {name: tuple(model.head.get_submodule(name).parameters()) for name in filled})


def initialise(model: nn.Module, scheme: Initialisation) -> None:
    """Draws the weights of all convolutions and linear layers anew.

    Args:
        model: Its biases become 0, except with `"torch"`.
        scheme: `"he"`: normal with the variance that keeps that of gradients through ReLUs (He et al. 2015,
            equation 14), in linear layers that of activations (equation 10), and the output layer near 0, so that
            training begins from equal scores. `"glorot"`: uniform, for activations without ReLU (Glorot & Bengio 2010,
            equation 16), the default of Keras. `"torch"`: uniform with variance 1 / (3 fan_in), biases too, the default
            of PyTorch.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    draw: Callable[[nn.Conv2d | nn.Linear], object]
    match scheme:
        case "he":
            draw = _draw_he
        case "glorot":
            draw = _draw_glorot
        case "torch":
            for layer in layers:
                layer.reset_parameters()
            return
    for layer in layers:
        draw(layer)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if scheme == "he":
        nn.init.normal_(layers[-1].weight, std=0.01)


def _draw_he(layer: nn.Conv2d | nn.Linear) -> None:
    mode: Literal["fan_in", "fan_out"] = "fan_out" if isinstance(layer, nn.Conv2d) else "fan_in"
    nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")


def _draw_glorot(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.xavier_uniform_(layer.weight)


def count_parameters(model: nn.Module) -> int:
    """Weights and biases, BatchNorm's included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, image_size: int) -> int:
    """Multiply-accumulates of convolutions and linear layers for one picture, as torch counts them."""
    with evaluation_mode(model), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.full((1, 3, image_size, image_size), 0.5))
    return int(counter.get_total_flops()) // 2


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def published_costs(arch: str) -> PublishedCosts:
    """What the published network costs and sees; without its classifier where it never had one."""
    if arch in ARCHITECTURE_NAMES:
        vgg, size = architecture(arch), 224
        rows = trunk_costs(vgg, image_size=size)
        rows += classifier_costs(vgg, rows[-1]) if vgg.classifier_widths else ()
    else:
        size, channels = (32, 1) if arch == "lenet5" else (224, 3)
        rows = network_costs(arch, image_size=size, in_channels=channels)
    total = total_costs(rows)
    # Rows without a stride are no maps: what a pooling to a single unit or flattening leaves, and the classifier.
    seen = [row.receptive_field for row in rows if row.stride is not None]
    return PublishedCosts(size, total.parameters, total.macs, seen[-1])


def parameters_with_auxiliary_heads() -> int:
    """Parameters of torchvision's GoogLeNet together with the two heads that help to train it."""
    with torch.device("meta"):
        network = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    return count_parameters(network)


def save_network(model: nn.Module, path: Path, *, arch: str, classes: tuple[str, ...]) -> None:
    """Writes the weights: of a VGG as `finetune` does, of another network under torchvision's names for its layers.

    Raises:
        WeightsError: The folder cannot be written or the disk is full.
    """
    if isinstance(model, VGGClassifier):
        save_classifier(model, path)
        return
    assert isinstance(model, WholeNetwork)
    tensors = model.network.state_dict()
    mean, std = (tuple(buffer.flatten().tolist()) for buffer in (model.mean, model.std))
    header = FileHeader(
        kind="network",
        architecture=arch,
        mean=mean,
        std=std,
        origin=model.origin,
        digest=weights_digest(tensors),
        more={"classes": classes},
    )
    write_weights(path, tensors, header)

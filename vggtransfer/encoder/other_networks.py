"""The networks that reviews set beside VGG: AlexNet, LeNet-5, GoogLeNet, ResNet-18 and DenseNet-121.

Here they are only looked at: torchvision builds them on the meta device, where tensors have a shape but no memory, and
one pass over their graph gives every row. `whole_network.py` makes them trainable. LeNet-5, which torchvision lacks, is
ours.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from functools import reduce
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import get_graph_node_names

from vggtransfer.encoder.layer_costs import BYTES_PER_VALUE, LayerCosts, ReceptiveField
from vggtransfer.errors import OptionError


def lenet5(in_channels: int = 1, *, classes: int = 10) -> nn.Module:
    """LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998) for 32x32 pictures, under the paper's layer names.

    The common modern variant, with 61,706 parameters for grey pictures of 10 classes: every C3 map reads all S2 maps
    (the paper connects some), the subsamplings are plain averages (the paper's have a weight and a bias), and the
    output is a linear layer (the paper's measures distances).
    """

    def tanh(name: str, layer: nn.Module) -> nn.Module:
        return nn.Sequential(OrderedDict({name: layer, "tanh": nn.Tanh()}))

    return nn.Sequential(
        OrderedDict(
            c1=tanh("conv", nn.Conv2d(in_channels, 6, 5)),
            s2=nn.AvgPool2d(2),
            c3=tanh("conv", nn.Conv2d(6, 16, 5)),
            s4=nn.AvgPool2d(2),
            c5=tanh("conv", nn.Conv2d(16, 120, 5)),
            flatten=nn.Flatten(),
            f6=tanh("linear", nn.Linear(120, 84)),
            output=nn.Linear(84, classes),
        )
    )


def build_network(arch: str, *, in_channels: int) -> nn.Module:
    """Builds a network in evaluation mode on torch's default device, without pretrained weights."""
    match arch:
        case "lenet5":
            return lenet5(in_channels).eval()
        case "googlenet":
            # Its own initialisation is slow and announced to change; nobody reads these weights.
            network = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
        case _:
            network = getattr(torchvision.models, arch)(weights=None)
    if in_channels != 3:
        name, first = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
        network.set_submodule(
            name,
            nn.Conv2d(
                in_channels,
                first.out_channels,
                _side(first.kernel_size),
                stride=_side(first.stride),
                padding=_side(first.padding),
                bias=first.bias is not None,
            ),
        )
    return network.eval()  # type: ignore[no-any-return]


def network_costs(arch: str, *, image_size: int, in_channels: int) -> tuple[LayerCosts, ...]:
    """The rows of a network on square pictures, under torchvision's names for the nodes of its graph.

    Functions that allocate a result (additions, concatenations) have rows of their own; flattening and dropout, which
    do nothing at inference, have none.

    Raises:
        OptionError: Pictures too small for the network.
    """
    with torch.device("meta"):
        network = build_network(arch, in_channels=in_channels)
    graph = fx.symbolic_trace(network)
    nodes = [node for node in graph.graph.nodes if node.op != "output"]
    names = get_graph_node_names(network, suppress_diff_warning=True)[1]
    shapes = _shapes_at(graph, image_size, in_channels)
    if shapes is None:
        raise OptionError(
            f"image_size={image_size} is too small for {arch}: "
            f"the minimum is {_minimum_size(graph, image_size, in_channels)}"
        )

    rows = []
    fields: dict[fx.Node, ReceptiveField] = {}
    for node, name in zip(nodes, names, strict=True):
        if node.op == "placeholder":
            fields[node] = ReceptiveField()
            continue
        operation = network.get_submodule(node.target) if node.op == "call_module" else node.target
        inputs = node.all_input_nodes
        fields[node] = _field(operation, [fields[source] for source in inputs], shapes[inputs[0]], shapes[node])
        if operation is torch.flatten or isinstance(operation, nn.Flatten | nn.Dropout):
            continue
        own = list(operation.parameters()) if isinstance(operation, nn.Module) else []
        parameters = sum(parameter.numel() for parameter in own)
        shape = shapes[node]
        positions = shape.numel() // shape[0]
        rows.append(
            LayerCosts(
                name=name,
                block=_block(arch, name),
                shape=tuple(shape),
                stride=fields[node].stride,
                receptive_field=fields[node].size,
                parameters=parameters,
                trainable_parameters=parameters,
                conv_macs=operation.weight.numel() * positions if isinstance(operation, nn.Conv2d) else 0,
                linear_macs=operation.weight.numel() if isinstance(operation, nn.Linear) else 0,
                activation_bytes=shape.numel() * BYTES_PER_VALUE,
            )
        )
    return tuple(rows)


def minimum_size(arch: str) -> int:
    """The side in pixels of the smallest square RGB pictures that a network takes; 32 for lenet5, which takes no other.

    A network may well shrink such pictures to a single position long before its last layer.
    """
    if arch == "lenet5":
        return 32
    with torch.device("meta"):
        graph = fx.symbolic_trace(build_network(arch, in_channels=3))
    return _minimum_size(graph, 0, 3)


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and keeps the shape of every node's output, without the batch axis."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        assert isinstance(result, Tensor)
        self.shapes[n] = result.shape[1:]
        return result


def _shapes_at(graph: fx.GraphModule, image_size: int, in_channels: int) -> dict[fx.Node, torch.Size] | None:
    """The shape of every node's output, or None if the pictures do not survive the network."""
    recorder = _ShapeRecorder(graph)
    try:
        recorder.run(torch.empty(1, in_channels, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError):
        return None
    return recorder.shapes


def _minimum_size(graph: fx.GraphModule, too_small: int, in_channels: int) -> int:
    enough = max(224, 2 * too_small)
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if _shapes_at(graph, middle, in_channels) is None:
            too_small = middle
        else:
            enough = middle
    return enough


def _field(operation: Any, fields: list[ReceptiveField], before: torch.Size, after: torch.Size) -> ReceptiveField:
    field = fields[0]
    match operation:
        case nn.Conv2d() | nn.MaxPool2d():
            return field.window(
                _side(operation.kernel_size),
                stride=_side(operation.stride),
                padding=_side(operation.padding),
                dilation=_side(operation.dilation),
            )
        case nn.AvgPool2d():
            return field.window(
                _side(operation.kernel_size), stride=_side(operation.stride), padding=_side(operation.padding)
            )
        case nn.AdaptiveAvgPool2d() | F.adaptive_avg_pool2d:
            return field.adaptive(before[-1], after[-1])
        case nn.Flatten() | torch.flatten:
            return field.all_of(before[-1])
        case operator.add | torch.cat:
            return reduce(ReceptiveField.union, fields)
        case nn.BatchNorm2d() | nn.ReLU() | nn.Tanh() | nn.Dropout() | nn.Linear() | F.relu:
            return field
        case _:
            raise TypeError(f"the receptive field of {operation} is not known")


def _side(value: Any) -> int:
    """One side of a kernel, stride, padding or dilation; all are square here."""
    if isinstance(value, int):
        return value
    height, width = value
    assert height == width
    return int(height)


def _block(arch: str, name: str) -> str:
    parts = name.split(".")
    # DenseNet keeps all of its blocks in one container.
    return parts[1] if arch == "densenet121" and parts[0] == "features" else parts[0]

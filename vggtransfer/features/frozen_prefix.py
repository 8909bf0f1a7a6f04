"""A model cut in two: the layers before anything changes, and the rest."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.layer_costs import trunk_costs
from vggtransfer.encoder.layers import is_hooked, layer_strides
from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.features.frozen_trunk import FrozenTrunk


class LayeredModel(Protocol):
    """A model whose layers follow one another, the whole trunk of its encoder first.

    Attributes:
        encoder: Its trunk and normalisation.
    """

    encoder: VGGEncoder

    def layers(self) -> list[tuple[str, nn.Module]]:
        """Returns all layers by name, in order; applied one by one to a normalised picture they are the model."""
        ...


def frozen_length(model: LayeredModel) -> int:
    """How many of the first layers give the same answer to the same picture for as long as the policy holds."""
    for position, (_, layer) in enumerate(model.layers()):
        trains = any(parameter.requires_grad for parameter in layer.parameters())
        if trains or is_hooked(layer) or isinstance(layer, nn.modules.dropout._DropoutNd):
            return position
    return len(model.layers())


def length_at_stride(model: LayeredModel, length: int, stride: int) -> int:
    """The most of the first `length` layers whose map has a stride of at most `stride`."""
    strides = layer_strides(model.encoder.architecture, model.encoder.output_stride)
    return sum(strides.get(name, stride + 1) <= stride for name, _ in model.layers()[:length])


class FrozenPrefix:
    """The first layers of a model, as they are now, made fast.

    Args:
        model: The model; it is copied and left as it is.
        length: How many layers, at least one.
        device: Where to compute.
        compute_type: See `FrozenTrunk`.

    Attributes:
        device: Where it computes.
        compute_type: See `FrozenTrunk`.
        last: Name of the last layer.
        digest: SHA-256 of all that decides what it answers, but for rounding.
    """

    def __init__(self, model: LayeredModel, length: int, *, device: torch.device, compute_type: torch.dtype) -> None:
        layers = model.layers()[:length]
        inside = [name for name, _ in layers if name in model.encoder.architecture.layer_names]
        self.device, self.compute_type = device, compute_type
        self.last = layers[-1][0]
        self.digest = prefix_digest(model, length)
        self._tap = inside[-1]
        self._channels = model.encoder.architecture.layer(self._tap).out_channels
        self._stride = layer_strides(model.encoder.architecture, model.encoder.output_stride)[self._tap]
        self._trunk = FrozenTrunk(model.encoder, [self._tap], device=device, compute_type=compute_type)
        self._behind = [copy.deepcopy(layer).to(device).eval() for _, layer in layers[len(inside) :]]

    def __call__(self, pictures: Tensor) -> Tensor:
        """Returns what the last layer answers to pictures uint8 [batch, channels, height, width]."""
        return self._continued(self._trunk(pictures)[self._tap])

    def _continued(self, maps: Tensor) -> Tensor:
        with torch.inference_mode():
            for layer in self._behind:
                maps = layer(maps)
        return maps

    def shape(self, side: int) -> tuple[int, ...]:
        """Shape of the answer to one picture of a side in pixels."""
        places = side // self._stride
        maps = torch.zeros(1, self._channels, places, places, dtype=self.compute_type, device=self.device)
        return tuple(self._continued(maps).shape[1:])


class Suffix(nn.Module):
    """The layers of a model from one on; they are the model's own, not copies.

    Args:
        model: The model.
        start: How many layers come before.
    """

    def __init__(self, model: LayeredModel, start: int) -> None:
        super().__init__()
        self.rest = nn.ModuleList(layer for _, layer in model.layers()[start:])

    def forward(self, maps: Tensor) -> Tensor:
        x, free = maps, False
        for layer in self.rest:
            # About 10 % faster on CPUs, but must not overwrite what a pooling or a hook holds.
            x = F.relu_(x) if free and type(layer) is nn.ReLU and not is_hooked(layer) else layer(x)
            free = isinstance(layer, nn.Conv2d | nn.BatchNorm2d) and not is_hooked(layer)
        return x


def prefix_digest(model: LayeredModel, length: int) -> str:
    """SHA-256 of the names, weights and statistics of the first layers, and of the normalisation before them."""
    encoder = model.encoder
    tensors = {"mean": encoder.mean, "std": encoder.std} if encoder.normalize else {}
    for name, layer in model.layers()[:length]:
        tensors[f"{name}: {_settings(layer)}"] = torch.empty(0)
        for key, tensor in layer.state_dict().items():
            if key != "num_batches_tracked":
                tensors[f"{name}.{key}"] = tensor
    return weights_digest(tensors)


def _settings(layer: nn.Module) -> str:
    return f"{type(layer).__name__}({layer.extra_repr()})"


def layer_macs(model: LayeredModel, image_size: int) -> list[int]:
    """Multiply-accumulates of each layer for a square picture of a side in pixels."""
    encoder = model.encoder
    rows = trunk_costs(encoder.architecture, image_size=image_size, output_stride=encoder.output_stride)
    trunk = {row.name: row.conv_macs for row in rows}
    return [
        trunk.get(name, layer.weight.numel() if isinstance(layer, nn.Linear) else 0) for name, layer in model.layers()
    ]

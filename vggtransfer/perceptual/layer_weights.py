"""Layers and how much each counts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vggtransfer.encoder.architectures import Architecture
from vggtransfer.encoder.vgg import checked_layers
from vggtransfer.errors import OptionError


def checked_weights(layers: Mapping[str, float], architecture: Architecture) -> dict[str, float]:
    """Returns the weights in the order of the network.

    Raises:
        OptionError: A layer that the architecture lacks, or a weight that is negative or not finite, or no layers.
    """
    names = checked_layers(layers, architecture)
    for name in names:
        if not (math.isfinite(layers[name]) and layers[name] >= 0):
            raise OptionError(f"layers: the weight of {name} is {layers[name]}; weights are finite and at least 0")
    return {name: float(layers[name]) for name in architecture.layer_names if name in names}


def last_activations(architecture: Architecture) -> tuple[str, ...]:
    """The last ReLU of each block: for VGG16 relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""
    found = {layer.block: layer.name for layer in architecture.layers if layer.kind == "relu"}
    return tuple(found.values())

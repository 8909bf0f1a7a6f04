"""The VGG configurations, as data: which layer follows which, under the papers' names.

Source: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1.
Nothing here needs torch, so the command line can list architectures without importing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from vggtransfer.errors import OptionError, did_you_mean

ArchitectureName = Literal[
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vgg16_bn_x0_25",
    "vgg11_lrn",
    "vgg16_1x1",
]
ARCHITECTURE_NAMES: tuple[str, ...] = get_args(ArchitectureName)

LayerKind = Literal["conv", "bn", "relu", "lrn", "pool"]

# Convolutions in each of the five blocks (columns A, B, D and E of table 1; C has D's depths).
_BLOCK_DEPTHS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_BLOCK_WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class Layer:
    """One layer of the trunk.

    `kernel_size` is 3 or 1 for convolutions (stride 1, same padding), 2 for pooling (stride 2) and 1 for the rest.
    """

    name: str
    kind: LayerKind
    block: int
    in_channels: int
    out_channels: int
    kernel_size: int = 1

    @property
    def has_parameters(self) -> bool:
        return self.kind in ("conv", "bn")


@dataclass(frozen=True)
class Architecture:
    """A trunk as an ordered tuple of layers, `conv1_1` to `pool5` for the full depth.

    `classifier_widths` are the outputs of fc6, fc7 and fc8 in the published network on 224x224 pictures; it is
    empty for architectures that never had fully connected layers.
    """

    name: str
    layers: tuple[Layer, ...]
    classifier_widths: tuple[int, ...]

    @property
    def depth(self) -> int:
        return self.layers[-1].block

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """Returns the layer called `name`; raises `OptionError` with the nearest name otherwise."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise OptionError(
            f"{self.name} with {self.depth} blocks has no layer '{name}'{did_you_mean(name, self.layer_names)}; "
            f"layers are named from {self.layers[0].name} to {self.layers[-1].name}"
        )


@cache
def architecture(name: str, *, in_channels: int = 3, depth: int = 5) -> Architecture:
    """Derives the layers of an architecture from its name.

    Args:
        name: One of `ARCHITECTURE_NAMES`.
        in_channels: Channels of the pictures.
        depth: Blocks to build, 1 to 5.

    Raises:
        OptionError: Unknown name, or numbers out of range.
    """
    if name not in ARCHITECTURE_NAMES:
        raise OptionError(
            f"unknown architecture '{name}'{did_you_mean(name, ARCHITECTURE_NAMES)}; "
            f"known: {', '.join(ARCHITECTURE_NAMES)}"
        )
    if not 1 <= depth <= 5:
        raise OptionError(f"depth={depth} is not possible: VGG has 1 to 5 blocks")
    if in_channels < 1:
        raise OptionError(f"in_channels={in_channels} is not possible: a picture has at least 1 channel")

    variant = name.split("_")[1:]
    quarter = "x0" in variant
    layers: list[Layer] = []
    channels = in_channels
    for block, convolutions in enumerate(_BLOCK_DEPTHS[int(name[3:5])][:depth], start=1):
        width = _BLOCK_WIDTHS[block - 1] // (4 if quarter else 1)
        for index in range(1, convolutions + 1):
            place = f"{block}_{index}"
            kernel_size = 1 if "1x1" in variant and index == 3 else 3
            layers.append(Layer(f"conv{place}", "conv", block, channels, width, kernel_size))
            channels = width
            if "bn" in variant:
                layers.append(Layer(f"bn{place}", "bn", block, width, width))
            layers.append(Layer(f"relu{place}", "relu", block, width, width))
            if "lrn" in variant and place == "1_1":
                layers.append(Layer(f"lrn{place}", "lrn", block, width, width))
        layers.append(Layer(f"pool{block}", "pool", block, width, width, kernel_size=2))
    return Architecture(name, tuple(layers), classifier_widths=() if quarter else (4096, 4096, 1000))

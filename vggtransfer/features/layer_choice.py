"""Which layers to take, and how large their maps are; all of it known without building a network."""

from __future__ import annotations

from collections.abc import Sequence

from vggtransfer.encoder.architectures import Architecture, architecture
from vggtransfer.errors import OptionError
from vggtransfer.features.pooling import PoolName, pooled_shape

LARGEST_IMAGE_SIZE = 4096


def layer_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    """Takes a comma list of layers apart; a sequence of names is one already.

    Raises:
        OptionError: It names no layer, or one twice.
    """
    given = layers.split(",") if isinstance(layers, str) else layers
    if not all(isinstance(name, str) for name in given):
        raise OptionError(f"layers={layers!r} is not possible: give names such as pool5,relu4_3")
    names = tuple(name.strip() for name in given if name.strip())
    if not names:
        raise OptionError(f"layers={layers!r} names no layer; for example pool5,relu4_3")
    for position, name in enumerate(names):
        if name in names[:position]:
            raise OptionError(f"layers={','.join(names)} has {name} twice; leave one out")
    return names


def map_shape(architecture: Architecture, layer: str, *, image_size: int) -> tuple[int, int, int]:
    """Returns (channels, height, width) of a layer's map of a square picture.

    Raises:
        OptionError: No such layer, or a picture that is too small or too large for it.
    """
    described = architecture.layer(layer)
    poolings = described.block - (described.kind != "pool")
    if not 2**poolings <= image_size <= LARGEST_IMAGE_SIZE:
        raise OptionError(
            f"image_size={image_size} is not possible for {layer}, which lies behind {poolings} poolings: "
            f"use {2**poolings} to {LARGEST_IMAGE_SIZE}"
        )
    side = image_size >> poolings
    return described.out_channels, side, side


def feature_shapes(arch: str, layers: Sequence[str], *, image_size: int, pool: PoolName) -> dict[str, tuple[int, ...]]:
    """Returns the shape that the features of one square picture have, by layer.

    Raises:
        OptionError: No such architecture or layer, or a picture that is too small or too large for it.
    """
    known = architecture(arch)
    return {layer: pooled_shape(map_shape(known, layer, image_size=image_size), pool) for layer in layers}

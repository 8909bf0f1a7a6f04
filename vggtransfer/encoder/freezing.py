"""Which layers train: the policy language behind `unfreeze=` and `--unfreeze`, and a report of what it did.

Parsing needs no torch, so `vggtransfer inspect` can show a policy without importing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggtransfer.encoder.architectures import Architecture, Layer
from vggtransfer.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from vggtransfer.encoder.vgg import VGGEncoder


def parse_unfreeze(policy: str, architecture: Architecture) -> tuple[str, ...]:
    """Names the layers with parameters that a policy trains, in network order.

    Args:
        policy: `"none"`, `"all"`, a block (`"block5"`), a layer (`"conv5_3"`, which brings its BatchNorm along; or
            `"bn5_3"` alone), a range of these (`"block4-block5"`, `"conv4_2-block5"`), or a comma list of them.
        architecture: The layers to choose from.

    Raises:
        OptionError: A name that is not in the architecture, a range that runs backwards, or a part that names
            nothing with parameters.
    """
    if policy == "none":
        return ()
    if policy == "all":
        return tuple(layer.name for layer in architecture.layers if layer.has_parameters)
    chosen: set[str] = set()
    for part in (part.strip() for part in policy.split(",")):
        if part in ("none", "all"):
            raise OptionError(f"unfreeze='{policy}': '{part}' stands alone and cannot be combined with others")
        first, _, last = part.partition("-")
        start, _ = _span(first, architecture, policy)
        _, stop = _span(last or first, architecture, policy)
        if stop <= start:
            raise OptionError(f"unfreeze='{policy}': the range '{part}' runs backwards; write '{last}-{first}'")
        names = {layer.name for layer in architecture.layers[start:stop] if layer.has_parameters}
        if not names:
            raise OptionError(f"unfreeze='{policy}': '{part}' has no parameters to train; name a conv layer or a block")
        chosen |= names
    return tuple(layer.name for layer in architecture.layers if layer.name in chosen)


def _span(name: str, architecture: Architecture, policy: str) -> tuple[int, int]:
    """Positions [start, stop) in `architecture.layers` that one name of a policy stands for."""
    layers = architecture.layers
    blocks = [f"block{block}" for block in range(1, architecture.depth + 1)]
    if name in blocks:
        inside = [position for position, layer in enumerate(layers) if layer.block == int(name[5:])]
        return inside[0], inside[-1] + 1
    if name in architecture.layer_names:
        start = architecture.layer_names.index(name)
        return start, start + (2 if _has_batch_norm(layers, start) else 1)
    known = ["none", "all", *blocks, *architecture.layer_names]
    raise OptionError(
        f"unfreeze='{policy}': {architecture.name} has no block or layer '{name}'{did_you_mean(name, known)}; "
        f"use none, all, {blocks[0]}..{blocks[-1]}, a layer such as {layers[0].name}, a range a-b or a comma list"
    )


def _has_batch_norm(layers: tuple[Layer, ...], position: int) -> bool:
    return layers[position].kind == "conv" and layers[position + 1].kind == "bn"


@dataclass(frozen=True)
class BlockFreezing:
    """One row of the freeze report: what one block holds and how much of it trains."""

    block: str
    parameters: int
    trainable: int
    batch_norm: str
    """`"-"` without BatchNorm, else `"trained"`, `"frozen"` (running statistics are constants) or `"mixed"`."""
    bytes: int
    """Size of parameters and buffers in memory."""


def freeze_report(encoder: VGGEncoder) -> tuple[BlockFreezing, ...]:
    """Counts, for each block of an encoder, its parameters and those that train under the present policy."""
    rows = []
    for block in range(1, encoder.architecture.depth + 1):
        layers = [layer for layer in encoder.architecture.layers if layer.block == block]
        modules = [encoder.trunk[layer.name] for layer in layers]
        parameters = [parameter for module in modules for parameter in module.parameters()]
        buffers = [buffer for module in modules for buffer in module.buffers()]
        norms = {layer.name in encoder.trainable_layers for layer in layers if layer.kind == "bn"}
        modes = {True: "trained", False: "frozen"}
        rows.append(
            BlockFreezing(
                block=f"block{block}",
                parameters=sum(parameter.numel() for parameter in parameters),
                trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
                batch_norm="mixed" if len(norms) == 2 else modes[norms.pop()] if norms else "-",
                bytes=sum(tensor.numel() * tensor.element_size() for tensor in [*parameters, *buffers]),
            )
        )
    return tuple(rows)

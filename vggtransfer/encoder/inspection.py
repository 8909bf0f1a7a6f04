"""`vggtransfer inspect`: what each layer or block of a network outputs, sees, holds and costs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, Architecture, ArchitectureName, architecture
from vggtransfer.encoder.freezing import parse_unfreeze
from vggtransfer.encoder.layer_costs import (
    LayerCosts,
    StackedKernels,
    block_costs,
    classifier_costs,
    compare_stacked_kernels,
    total_costs,
    trunk_costs,
)
from vggtransfer.errors import OptionError, did_you_mean

NetworkName = Literal[ArchitectureName, "alexnet", "lenet5", "googlenet", "resnet18", "densenet121"]
NETWORK_NAMES: tuple[str, ...] = get_args(NetworkName)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found: its arguments as used, one row per layer or block, and the total of all layers."""

    arch: str
    image_size: int
    in_channels: int
    depth: int | None
    """Blocks of the VGG trunk; None for other networks, as for `output_stride`."""
    output_stride: int | None
    unfreeze: str
    level: Literal["layer", "block"]
    rows: tuple[LayerCosts, ...]
    total: LayerCosts
    stacked_kernels: tuple[StackedKernels, ...]
    """For VGG: stacks of 3x3 convolutions against single larger ones, with weights in units of channels squared."""
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain types, as `--format json` prints it."""
        rows = [row.as_dict() for row in self.rows]
        return asdict(self) | {"rows": rows, "total": self.total.as_dict()}


def inspect(
    arch: NetworkName,
    *,
    image_size: int | None = None,
    level: Literal["layer", "block"] = "layer",
    unfreeze: str = "all",
    classifier: bool = True,
    in_channels: int | None = None,
    depth: int = 5,
    output_stride: Literal[8, 16, 32] = 32,
    format: Literal["table", "json"] = "table",  # noqa: A002
) -> Inspection:
    """Shows shapes, receptive fields, parameters, computation and memory of a network, layer by layer.

    No weights are read and no picture is computed. VGG rows follow from the architecture alone; the other networks,
    here for comparison, are torchvision's (LeNet-5 is our own). MACs are the multiply-accumulates of convolutions and
    fully connected layers for one picture; FLOPs are twice as many. Activation memory is the output of every layer in
    fp32 for one picture, as if none were overwritten in place or freed. Receptive fields count padding: a number
    above the image size reaches past the picture.

    Args:
        arch: A VGG architecture, or alexnet, lenet5, googlenet, resnet18, densenet121.
        image_size: Side of the square pictures in pixels; by default 224, and 32 for lenet5.
        level: One row per layer, or one per block.
        unfreeze: Freezing policy of the VGG trunk to show: none, all, a block or layer name, a range such as
            block4-block5, or a comma list. The classifier always trains.
        classifier: Whether to include the published classifier (1000 classes; fc6 to fc8 of VGG). At sizes other than
            224 an average pooling to 7x7 comes before fc6, as in torchvision. VGG with depth below 5 or output_stride
            below 32, and vgg16_bn_x0_25, have none.
        in_channels: Channels of the pictures; by default 3, and 1 for lenet5.
        depth: Blocks of the VGG trunk, 1 to 5.
        output_stride: 8 or 16 replaces the last poolings of the VGG trunk by dilation.
        format: A table for people, or one JSON object.

    Returns:
        The rows and the total that were printed.

    Raises:
        OptionError: An unknown network, pictures too small for it, or an option that it does not have.
    """
    if arch not in NETWORK_NAMES:
        raise OptionError(
            f"unknown network '{arch}'{did_you_mean(arch, NETWORK_NAMES)}; known: {', '.join(NETWORK_NAMES)}"
        )
    _check_choice("level", level, ("layer", "block"))
    _check_choice("output_stride", output_stride, (8, 16, 32))
    _check_choice("format", format, ("table", "json"))
    image_size = (32 if arch == "lenet5" else 224) if image_size is None else image_size
    in_channels = (1 if arch == "lenet5" else 3) if in_channels is None else in_channels
    is_vgg = arch in ARCHITECTURE_NAMES
    if is_vgg:
        vgg = architecture(arch, in_channels=in_channels, depth=depth)
        layers, notes = _vgg_layers(vgg, image_size, unfreeze, classifier, output_stride)
    else:
        for option, value, default in (
            ("unfreeze", unfreeze, "all"),
            ("depth", depth, 5),
            ("output_stride", output_stride, 32),
        ):
            if value != default:
                raise OptionError(f"{option}={value} applies to VGG networks only; leave {option} out for {arch}")
        layers, notes = _other_layers(arch, image_size, classifier, in_channels)

    inspection = Inspection(
        arch=arch,
        image_size=image_size,
        in_channels=in_channels,
        depth=depth if is_vgg else None,
        output_stride=output_stride if is_vgg else None,
        unfreeze=unfreeze,
        level=level,
        rows=layers if level == "layer" else block_costs(layers),
        total=total_costs(layers),
        stacked_kernels=compare_stacked_kernels(channels=1) if is_vgg else (),
        notes=notes,
    )
    if format == "json":
        print(json.dumps(inspection.as_dict(), indent=2))
    else:
        from vggtransfer.encoder.inspection_table import print_table

        print_table(inspection)
    return inspection


def _check_choice(option: str, value: str | int, choices: tuple[str | int, ...]) -> None:
    if value not in choices:
        raise OptionError(f"{option}={value} is not possible: use {', '.join(map(str, choices))}")


def _vgg_layers(
    vgg: Architecture, image_size: int, unfreeze: str, classifier: bool, output_stride: int
) -> tuple[tuple[LayerCosts, ...], tuple[str, ...]]:
    trainable = parse_unfreeze(unfreeze, vgg)
    minimum = min(2**vgg.depth, output_stride)
    if image_size < minimum:
        raise OptionError(
            f"image_size={image_size} is too small for {vgg.name} with {vgg.depth} blocks: the minimum is {minimum}"
        )
    rows = trunk_costs(vgg, image_size=image_size, output_stride=output_stride, trainable_layers=trainable)
    if not classifier:
        return rows, ()
    if not vgg.classifier_widths:
        return rows, (f"{vgg.name} has no fully connected classifier: the trunk alone",)
    if vgg.depth < 5 or output_stride < 32:
        return rows, ("The classifier needs 5 blocks and output_stride 32: the trunk alone",)
    return (*rows, *classifier_costs(vgg, rows[-1])), ()


def _other_layers(
    arch: str, image_size: int, classifier: bool, in_channels: int
) -> tuple[tuple[LayerCosts, ...], tuple[str, ...]]:
    if in_channels < 1:
        raise OptionError(f"in_channels={in_channels} is not possible: a picture has at least 1 channel")
    if arch == "lenet5" and image_size != 32:
        raise OptionError(f"image_size={image_size} is not possible: lenet5 reads pictures of 32x32")
    if image_size < 1:
        raise OptionError(f"image_size={image_size} is not possible: a picture has at least 1 pixel")
    # Imported here because it needs torch and torchvision, which the VGG table does without.
    from vggtransfer.encoder.other_networks import network_costs

    rows = network_costs(arch, image_size=image_size, in_channels=in_channels)
    if not classifier:
        rows = tuple(row for row in rows if row.stride is not None)
    match arch:
        case "lenet5":
            return rows, ("Common variant: C3 fully connected to S2, plain average pooling, linear output",)
        case "googlenet":
            return rows, (
                "torchvision's GoogLeNet: BatchNorm added, 3x3 where the paper has 5x5 kernels, no auxiliary heads",
            )
        case _:
            return rows, ()

"""What each layer of a network costs and sees; for VGG derived from the architecture alone, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from vggtransfer.encoder.architectures import Architecture, Layer

BYTES_PER_VALUE = 4  # fp32


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels along one axis that the units of a map see (Araujo, Norris & Sim, Distill 2019).

    Unit i sees the pixels `first + i * stride` to `last + i * stride`, padding included. Height and width are alike
    in all networks here.
    """

    first: int = 0
    last: int = 0
    stride: int | None = 1
    """None where there is no regular grid of units any more: after global or uneven pooling and flattening."""
    whole: tuple[int, int] | None = None
    """First and last pixel that all units together see, once there is no regular grid."""

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def window(self, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> ReceptiveField:
        """The field behind a convolution or pooling; `padding` is that before the first unit."""
        if self.stride is None:
            raise ValueError("a convolution or pooling needs a regular grid of units")
        return ReceptiveField(
            first=self.first - padding * self.stride,
            last=self.last + (dilation * (kernel_size - 1) - padding) * self.stride,
            stride=self.stride * stride,
        )

    def union(self, other: ReceptiveField) -> ReceptiveField:
        """The field behind an addition or concatenation of two branches."""
        if self.stride != other.stride:
            raise ValueError(f"branches of strides {self.stride} and {other.stride} cannot be joined")
        return replace(self, first=min(self.first, other.first), last=max(self.last, other.last))

    def all_of(self, units: int) -> ReceptiveField:
        """The field of a fully connected layer on a map of `units` x `units`."""
        if self.whole is not None:
            first, last = self.whole
        else:
            assert self.stride is not None
            first, last = self.first, self.last + (units - 1) * self.stride
        return ReceptiveField(first, last, stride=None, whole=(first, last))

    def adaptive(self, units: int, outputs: int) -> ReceptiveField:
        """The field behind adaptive pooling of `units` to `outputs`; that of the widest window if they differ."""
        if outputs == 1:
            return self.all_of(units)
        if units % outputs == 0:
            return self.window(units // outputs, stride=units // outputs)
        # Window i of torch's adaptive pooling covers the units floor(i * n / m) to ceil((i + 1) * n / m) - 1.
        widest = max(-(-(i + 1) * units // outputs) - i * units // outputs for i in range(outputs))
        return replace(self.window(widest), stride=None, whole=self.all_of(units).whole)


@dataclass(frozen=True)
class LayerCosts:
    """One row of `vggtransfer inspect`: a layer, or all layers of a block together."""

    name: str
    block: str
    shape: tuple[int, ...]
    """Of the output for one picture: (channels, height, width), or (features,) after flattening."""
    stride: int | None
    """Pixels of the picture per step of the output; None after global or uneven pooling and flattening."""
    receptive_field: int
    """Pixels along one axis that one output value sees, padding included."""
    parameters: int = 0
    trainable_parameters: int = 0
    conv_macs: int = 0
    linear_macs: int = 0
    activation_bytes: int = 0
    """The output of every layer in fp32, for one picture."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and fully connected layers for one picture, without biases."""
        return self.conv_macs + self.linear_macs

    @property
    def status(self) -> str:
        """`"trainable"`, `"frozen"`, `"partly"` (a block with both), or empty without parameters."""
        if self.parameters == 0:
            return ""
        if self.trainable_parameters == self.parameters:
            return "trainable"
        return "partly" if self.trainable_parameters else "frozen"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"macs": self.macs, "status": self.status}


def trunk_costs(
    architecture: Architecture, *, image_size: int, output_stride: int = 32, trainable_layers: tuple[str, ...] = ()
) -> tuple[LayerCosts, ...]:
    """The rows of a VGG trunk on square pictures, with the layers named in `trainable_layers` trainable.

    Poolings beyond `output_stride` move by single steps and the layers behind them are dilated, as in `VGGEncoder`.
    """
    rows = []
    field, size, dilation = ReceptiveField(), image_size, 1
    for layer in architecture.layers:
        match layer.kind:
            case "conv":
                padding = dilation * (layer.kernel_size // 2)
                field = field.window(layer.kernel_size, padding=padding, dilation=dilation)
            case "pool" if field.stride != output_stride:
                field, size = field.window(2, stride=2), size // 2
            case "pool":
                field, dilation = field.window(2, dilation=dilation), 2 * dilation
        parameters = _parameters(layer)
        rows.append(
            LayerCosts(
                name=layer.name,
                block=f"block{layer.block}",
                shape=(layer.out_channels, size, size),
                stride=field.stride,
                receptive_field=field.size,
                parameters=parameters,
                trainable_parameters=parameters if layer.name in trainable_layers else 0,
                conv_macs=_weights(layer) * size**2 if layer.kind == "conv" else 0,
                activation_bytes=layer.out_channels * size**2 * BYTES_PER_VALUE,
            )
        )
    return tuple(rows)


def classifier_costs(architecture: Architecture, pool5: LayerCosts) -> tuple[LayerCosts, ...]:
    """The rows of fc6 to fc8 behind `pool5`, all trainable.

    Maps of a size other than 7x7 are first pooled to 7x7 (adaptive average), as in torchvision.
    """
    channels, size, _ = pool5.shape
    field = ReceptiveField(0, pool5.receptive_field - 1, pool5.stride)
    rows = []
    if size != 7:
        pooled = field.adaptive(size, 7)
        shape = (channels, 7, 7)
        row = LayerCosts("avgpool", "classifier", shape, pooled.stride, pooled.size)
        rows.append(replace(row, activation_bytes=channels * 7 * 7 * BYTES_PER_VALUE))
    seen = field.all_of(size).size
    inputs = channels * 7 * 7
    for number, width in enumerate(architecture.classifier_widths, start=6):
        activation = LayerCosts(
            f"relu{number}", "classifier", (width,), None, seen, activation_bytes=width * BYTES_PER_VALUE
        )
        parameters, macs = (inputs + 1) * width, inputs * width
        rows.append(
            replace(
                activation,
                name=f"fc{number}",
                parameters=parameters,
                trainable_parameters=parameters,
                linear_macs=macs,
            )
        )
        rows.append(activation)
        inputs = width
    return tuple(rows[:-1])  # fc8 gives the scores, without ReLU


def block_costs(rows: tuple[LayerCosts, ...]) -> tuple[LayerCosts, ...]:
    """One row per block: shape, stride and receptive field of its last layer, and the sums of the rest."""
    blocks = groupby(rows, key=lambda row: row.block)
    return tuple(replace(total_costs(tuple(members)), name=block, block=block) for block, members in blocks)


def total_costs(rows: tuple[LayerCosts, ...]) -> LayerCosts:
    """All rows in one, called "total"."""
    return replace(
        rows[-1],
        name="total",
        block="",
        parameters=sum(row.parameters for row in rows),
        trainable_parameters=sum(row.trainable_parameters for row in rows),
        conv_macs=sum(row.conv_macs for row in rows),
        linear_macs=sum(row.linear_macs for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
    )


def _weights(layer: Layer) -> int:
    return layer.in_channels * layer.out_channels * layer.kernel_size**2


def _parameters(layer: Layer) -> int:
    match layer.kind:
        case "conv":
            return _weights(layer) + layer.out_channels
        case "bn":
            return 2 * layer.out_channels
        case _:
            return 0


@dataclass(frozen=True)
class StackedKernels:
    """A stack of 3x3 convolutions beside the single convolution that sees as much."""

    convolutions: int
    receptive_field: int
    weights: int
    single_kernel_size: int
    single_weights: int


def compare_stacked_kernels(channels: int) -> tuple[StackedKernels, ...]:
    """Two and three stacked 3x3 convolutions against one 5x5 and one 7x7, all from `channels` to `channels`.

    This is the argument of section 2.3 of Simonyan & Zisserman 2015 for small kernels. Biases are left out.
    """
    rows = []
    field = ReceptiveField().window(3, padding=1)
    for convolutions in (2, 3):
        field = field.window(3, padding=1)
        rows.append(
            StackedKernels(
                convolutions=convolutions,
                receptive_field=field.size,
                weights=convolutions * 3 * 3 * channels**2,
                single_kernel_size=field.size,
                single_weights=field.size**2 * channels**2,
            )
        )
    return tuple(rows)

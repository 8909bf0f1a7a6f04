"""A trunk's layers as torch modules, each under its name in the paper."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from vggtransfer.encoder.architectures import Architecture, Layer


def build_layers(architecture: Architecture, output_stride: int) -> dict[str, nn.Module]:
    """Builds all layers; poolings past `output_stride` and the convolutions behind them are dilated."""
    modules: dict[str, nn.Module] = {}
    stride, dilation = 1, 1
    for layer in architecture.layers:
        if layer.kind != "pool":
            modules[layer.name] = _build_layer(layer, dilation)
        elif stride < output_stride:
            modules[layer.name] = nn.MaxPool2d(2)
            stride *= 2
        else:
            modules[layer.name] = DilatedMaxPool2d(dilation)
            dilation *= 2
    return modules


def layer_strides(architecture: Architecture, output_stride: int) -> dict[str, int]:
    """Pixels of the picture per step of each layer's map."""
    strides, stride = {}, 1
    for layer in architecture.layers:
        if layer.kind == "pool":
            stride = min(2 * stride, output_stride)
        strides[layer.name] = stride
    return strides


def is_hooked(layer: nn.Module) -> bool:
    """Whether a hook sees, and may keep or replace, what enters or leaves a layer in either direction."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or _has_any_global_hook()  # type: ignore[no-untyped-call]
    )


class DilatedMaxPool2d(nn.Module):
    """2x2 max pooling that keeps the size of the map: single steps, with taps `dilation` apart.

    It replaces a pooling by 2, and the layers behind it are dilated as well, so that their weights see what they were
    trained on. If the map that the replaced pooling would see has even sides, every (2 * dilation)-th value here equals
    one of its values. Of an odd side it would drop the last row or column, which is kept here; then the values behind
    it differ near the right and bottom borders.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, [0, self.dilation, 0, self.dilation], value=-torch.inf)
        return F.max_pool2d(padded, 2, stride=1, dilation=self.dilation)

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"


class FreezableBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that stays in evaluation mode while `frozen`, whoever calls `.train()` on it or on what contains it."""

    frozen = False

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)


def _build_layer(layer: Layer, dilation: int) -> nn.Module:
    match layer.kind:
        case "conv":
            padding = dilation * (layer.kernel_size // 2)
            return nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, padding=padding, dilation=dilation
            )
        case "bn":
            return FreezableBatchNorm2d(layer.out_channels)
        case "lrn":
            # Krizhevsky et al. 2012, section 3.3: k=2, n=5, alpha=1e-4, beta=0.75. torch divides alpha by n.
            return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        case _:
            return nn.ReLU()

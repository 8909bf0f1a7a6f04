"""Matrix products and convolutions by oneDNN with weights laid out once, as torch.compile calls them on CPUs.

torch's own `linear` gives float32 to MKL, which on AMD's processors runs at a quarter of what oneDNN reaches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def has_onednn(kind: torch.dtype) -> bool:
    """Whether this build of torch can, in a type, on this CPU."""
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product(x: Tensor, y: Tensor) -> Tensor:
    """Returns x @ y.T in float32.

    Args:
        x: [rows, depth].
        y: [columns, depth].
    """
    if x.device.type != "cpu" or not has_onednn(x.dtype):
        return x @ y.T
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "")
    return result


class PackedLinear:
    """x @ weight.T + bias on the CPU.

    Args:
        weight: [out, in], float32.
        bias: [out], or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.contiguous()
        self._packed = has_onednn(weight.dtype)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        if not self._packed:
            return F.linear(x, self._weight, self._bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return product


class PackedConvolution:
    """A convolution with stride 1 on the CPU, with its ReLU.

    Args:
        weight: [out, in, kernel, kernel], float32 or bfloat16.
        bias: [out], or None.
        padding: On all sides.
        relu: Whether negative results become 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, padding: int, relu: bool) -> None:
        weight = weight.contiguous(memory_format=torch.channels_last)
        self._padding, self._relu, self._bias = padding, relu, bias
        self._packed = has_onednn(weight.dtype)
        if self._packed:
            weight = torch.ops.mkldnn._reorder_convolution_weight(weight, [padding] * 2, [1, 1], [1, 1], 1, None)
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """Returns [batch, out, height, width], in the layout of x."""
        if not self._packed:
            y = F.conv2d(x, self._weight, self._bias, padding=self._padding)
            return F.relu_(y) if self._relu else y
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x,
            self._weight,
            self._bias,
            [self._padding] * 2,
            [1, 1],
            [1, 1],
            1,
            "relu" if self._relu else "none",
            [],
            "",
        )
        return result

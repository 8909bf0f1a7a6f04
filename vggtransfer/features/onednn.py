"""Convolutions and matrix products by the operators of oneDNN that torch.compile calls on CPUs; plain ones elsewhere.

They take weights laid out beforehand, and join the ReLU on values that have not left the registers. torch's own
`linear` gives float32 to MKL, which on AMD's processors runs at a quarter of what oneDNN reaches.

The operators are private to torch and may change with any version: once they have refused what the plain operation can
do, they are not asked again.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# Sizes of maps for which weights are kept: oneDNN chooses their layout by the size of the maps, and may take a hundred
# times as long with a layout that it would not have chosen.
_SIZES_KEPT = 2

_refused: set[Literal["convolution", "linear"]] = set()


def takes(x: Tensor) -> bool:
    """Whether oneDNN is there for such a tensor: built in, not switched off, and made for this CPU and type."""
    if torch.compiler.is_compiling():  # torch.compile chooses by itself, and wants to see plain operations
        return False
    return x.device.type == "cpu" and bool(torch.backends.mkldnn.enabled) and _computes(x.dtype)


def product(x: Tensor, y: Tensor) -> Tensor:
    """Returns x @ y.T.

    Args:
        x: [rows, depth].
        y: [columns, depth].
    """
    asked = takes(x) and "linear" not in _refused
    result = _asked("_linear_pointwise", x, y, None, "none", [], "") if asked else None
    if result is None:
        result = x @ y.T
        if asked:
            _refused.add("linear")
    return result


class PackedConvolution:
    """A convolution with stride 1, with its ReLU if it has one.

    Args:
        weight: [out, in / groups, kernel, kernel].
        bias: [out], or None.
        padding: Above and below, left and right.
        dilation: Likewise.
        groups: Parts of the input's channels, each of which gives its part of the output's.
        relu: Whether negative results become 0.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        padding: tuple[int, int],
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        relu: bool,
    ) -> None:
        self._weight: Tensor | None = weight
        self._bias = bias
        self._padding, self._dilation, self._groups, self._relu = padding, dilation, groups, relu
        self._packed: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Returns [batch, out, height, width], in the layout of x."""
        asked = takes(x) and "convolution" not in _refused
        result = self._fused(x) if asked else None
        if result is not None:
            return result
        self._weight = self._unpacked()
        y = F.conv2d(x, self._weight, self._bias, 1, self._padding, self._dilation, self._groups)
        if asked:
            _refused.add("convolution")
        return F.relu_(y) if self._relu else y

    def _fused(self, x: Tensor) -> Tensor | None:
        geometry = (list(self._padding), [1, 1], list(self._dilation), self._groups)  # the stride is 1
        size = x.shape[2:]
        packed = self._packed.get(size)
        if packed is None:
            packed = _asked("_reorder_convolution_weight", self._unpacked(), *geometry, list(x.shape))
            if packed is None:
                return None
            if len(self._packed) == _SIZES_KEPT:
                del self._packed[next(iter(self._packed))]
            self._packed[size] = packed
            self._weight = None  # is in there
        return _asked(
            "_convolution_pointwise", x, packed, self._bias, *geometry, "relu" if self._relu else "none", [], ""
        )

    def _unpacked(self) -> Tensor:
        return next(iter(self._packed.values())).to_dense() if self._weight is None else self._weight


def _asked(operator: str, *arguments: object) -> Tensor | None:
    """The result of a private operator, or None if there is none of this name or it refuses its arguments."""
    try:
        result: Tensor = getattr(torch.ops.mkldnn, operator)(*arguments)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return result


@cache
def _computes(kind: torch.dtype) -> bool:
    if not torch._C._has_mkldnn or "AVX" not in torch.backends.cpu.get_cpu_capability():
        return False
    # As torch decides for its own convolutions; below, it would compute bfloat16 without oneDNN.
    return kind == torch.float32 or (kind == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))

"""A frozen convolution in both directions: its weights are converted once for each type and device, then kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vggtransfer.features.onednn import PackedConvolution
from vggtransfer.features.winograd import WinogradConvolution, saves_time


class FrozenConvolution:
    """A convolution with stride 1 and same padding whose weights never change, with its ReLU if it has one.

    The gradient with respect to the maps is itself a convolution, with the filters turned by half a turn and inputs and
    outputs exchanged; computed so, it is as fast as the forward pass.

    Args:
        weight: [out, in, kernel, kernel], float32.
        bias: [out], float32.
        relu: Whether negative results become 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, relu: bool) -> None:
        self.weight, self.bias, self.relu = weight, bias, relu
        self._prepared: dict[tuple[torch.device, torch.dtype, bool], Callable[[Tensor], Tensor]] = {}
        self._turned: FrozenConvolution | None = None

    def __getstate__(self) -> dict[str, object]:
        # The prepared forms are closures over layouts that cannot be pickled; they are made again.
        return self.__dict__ | {"_prepared": {}, "_turned": None}

    def __call__(self, x: Tensor) -> Tensor:
        """Returns maps [batch, height, width, out] of maps [batch, height, width, in], in the type of x."""
        fast = saves_time(self.weight, x)
        key = (x.device, x.dtype, fast)
        if key not in self._prepared:
            self._prepared[key] = self._prepare(x, fast)
        return self._prepared[key](x)

    def backward(self, gradient: Tensor) -> Tensor:
        """Returns the gradient with respect to x, of that with respect to the result before any ReLU."""
        if self._turned is None:
            self._turned = FrozenConvolution(self.weight.flip(2, 3).transpose(0, 1).contiguous(), None, relu=False)
        return self._turned(gradient)

    def _prepare(self, x: Tensor, fast: bool) -> Callable[[Tensor], Tensor]:
        if fast:
            return WinogradConvolution(self.weight, self.bias, compute_type=x.dtype, relu=self.relu)
        weight = self.weight.to(x.device, x.dtype)
        bias = None if self.bias is None else self.bias.to(x.device, x.dtype)
        padding = weight.shape[2] // 2
        weight = weight.contiguous(memory_format=torch.channels_last)
        packed = PackedConvolution(weight, bias, padding=(padding, padding), relu=self.relu)
        return lambda x: packed(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

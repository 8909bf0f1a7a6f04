"""Winograd's minimal convolutions: a quarter of the multiplications in float32, four ninths in bfloat16.

Lavin & Gray 2016, section 4.1: F(4x4, 3x3) in float32, with an error of some 3e-6 of the result's size against 1e-6 of
the direct sum; F(2x2, 3x3) in bfloat16, where the larger tiles would lose 3 %, with 0.4 % against 0.2 %. oneDNN has no
such kernels for x86. Measured on two cores with AVX-512, 512 channels at 28x28: float32 3.4 ms against 6.9, bfloat16
2.2 against 3.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.features.onednn import PackedConvolution, takes

# A^T, G and B^T of Lavin & Gray by the side of a tile's output: from points to pixels, from a filter's taps to points,
# from pixels to points.
_OUTPUT = {
    4: ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
}
_FILTER = {
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
}
_INPUT = {
    4: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
}

_CACHE_BYTES = 2**22  # of the points of tiles that are computed together; measured, not critical

# From how many input and output channels together, and multiplications of the direct sum, those saved outweigh the
# transforms; measured with one and two cores with AVX-512.
_CHANNELS = {torch.float32: 256, torch.bfloat16: 384}
_MULTIPLICATIONS = 4e8


def saves_time(weight: Tensor, x: Tensor) -> bool:
    """Whether a convolution with stride 1 and as much padding as keeps the size is faster this way.

    Args:
        weight: [out, in, kernel, kernel].
        x: Its input, with its channels in any place.
    """
    return (
        takes(x)
        and weight.shape[2] == 3
        and sum(weight.shape[:2]) >= _CHANNELS[x.dtype]
        and not (x.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported())  # faster than any transform
        and x.numel() * weight[:, 0].numel() >= _MULTIPLICATIONS
    )


class WinogradConvolution:
    """A 3x3 convolution with padding 1 and stride 1 on the CPU, for maps [batch, height, width, channels].

    Args:
        weight: [out, in, 3, 3].
        bias: [out], or None.
        compute_type: float32 or bfloat16.
        relu: Whether negative results become 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, compute_type: torch.dtype, relu: bool) -> None:
        self._relu = relu
        self._side = side = 4 if compute_type == torch.float32 else 2
        self._points, self._channels = side + 2, weight.shape[0]
        self._to_points = _Transform(_INPUT[side], compute_type)
        self._to_pixels = _Transform(_OUTPUT[side], compute_type)
        of_filter = torch.tensor(_FILTER[side], dtype=torch.float64)
        filters = torch.kron(of_filter, of_filter).float() @ weight.float().reshape(-1, 9).T
        # The transform of the output brings a value at the second point of the second row to all pixels unchanged.
        offset = filters.new_zeros(self._points, self._points, self._channels)
        if bias is not None:
            offset[1, 1] = bias
        # One product per point, all in one operation: a 1x1 convolution with a group of channels for each.
        self._products = PackedConvolution(
            filters.view(-1, weight.shape[1], 1, 1).to(compute_type),
            offset.flatten().to(compute_type),
            padding=(0, 0),
            groups=self._points**2,
            relu=False,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Returns [batch, height, width, out] of maps [batch, height, width, in] in the compute type."""
        side, (batch, height, width, channels) = self._side, x.shape
        down, across = -(-height // side), -(-width // side)
        # Pieces of equal size, for which the weights are laid out once.
        line_bytes = self._points**2 * across * channels * x.element_size()
        pieces = -(-down * line_bytes // _CACHE_BYTES)
        lines = -(-down // pieces)
        parts = -(-batch * down * line_bytes // _CACHE_BYTES) if pieces == 1 else batch
        pictures = -(-batch // parts)
        y = x.new_empty(batch, lines * pieces, side, across, side, self._channels)
        padded = F.pad(x, (0, 0, 1, 1 + side * across - width, 1, 1 + side * lines * pieces - height))
        for first in range(0, batch, pictures):
            some = slice(first, first + pictures)
            for top in range(0, lines * pieces, lines):
                bottom = top + lines
                self._convolve(padded[some, side * top : side * bottom + 2], y[some, top:bottom])
        return y.view(batch, side * lines * pieces, side * across, -1)[:, :height, :width].contiguous()

    def _convolve(self, padded: Tensor, y: Tensor) -> None:
        """Fills y [batch, down, side, across, side, out], the results of so many tiles."""
        batch, down, side, across, _, _ = y.shape
        tiles = padded.unfold(1, self._points, side).unfold(2, self._points, side)  # each overlaps the next by 2 pixels
        tiles = tiles.permute(0, 1, 2, 4, 5, 3).flatten(0, 2)
        points = self._to_points(tiles)
        del tiles
        products = self._products(points.view(1, len(points), 1, -1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        products = products.view(*points.shape[:3], self._channels)
        del points
        pixels = self._to_pixels(products).view(batch, down, across, side, side, -1).transpose(2, 3)
        if self._relu:
            torch.clamp_min(pixels, 0, out=y)
        else:
            y.copy_(pixels)


class _Transform:
    """A matrix applied to both directions of tiles."""

    def __init__(self, matrix: Sequence[Sequence[float]], compute_type: torch.dtype) -> None:
        exact = torch.tensor(matrix, dtype=torch.float64)
        # bfloat16 would be rounded between the directions, and is slow in products as small as these.
        self._at_once = compute_type == torch.bfloat16
        self._matrix = (torch.kron(exact, exact) if self._at_once else exact).to(compute_type)
        self._side = len(matrix)

    def __call__(self, tiles: Tensor) -> Tensor:
        """Returns [tiles, rows, rows, channels] of contiguous [tiles, columns, columns, channels]."""
        count, columns, _, channels = tiles.shape
        if self._at_once:
            result = torch.bmm(self._matrix.expand(count, -1, -1), tiles.flatten(1, 2))
        else:
            rows = torch.bmm(self._matrix.expand(count, -1, -1), tiles.flatten(2))
            many = count * self._side
            result = torch.bmm(self._matrix.expand(many, -1, -1), rows.view(many, columns, channels))
        return result.view(count, self._side, self._side, channels)

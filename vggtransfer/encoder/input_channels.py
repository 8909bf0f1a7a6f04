"""Weights trained on RGB, fitted to pictures with another number of channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def adapt_preprocessing(values: Sequence[float], in_channels: int) -> list[float]:
    """The mean or standard deviation per channel: averaged over RGB for 1 channel, else cycled through RGB."""
    return [sum(values) / 3] if in_channels == 1 else [values[channel % 3] for channel in range(in_channels)]


def adapt_first_layer(
    weight: Tensor, bias: Tensor, in_channels: int, *, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Fits conv1_1 to pictures of `in_channels` that are normalised as `adapt_preprocessing` says.

    For 1 channel, weights are summed over RGB, and what the channels' means and standard deviations differ by goes
    into weights and bias: a grey picture gives the values of its RGB copy, but for those at the border of the map,
    where zero padding stands for another grey. Other numbers of channels cycle through RGB, rescaled by
    3 / in_channels to keep the size of the response.

    Args:
        weight: [out, channels, kernel, kernel]; returned as it is if the channels are right already.
        bias: [out].
        in_channels: Channels of the pictures.
        mean: RGB mean that the weights were trained with.
        std: RGB standard deviation, likewise.

    Returns:
        Weight [out, in_channels, kernel, kernel] and bias [out].
    """
    if in_channels == weight.shape[1]:
        return weight, bias
    if in_channels > 1:
        return weight[:, [channel % 3 for channel in range(in_channels)]] * (3 / in_channels), bias
    # (x - mean_c) / std_c = ((x - grey_mean) / grey_std) * (grey_std / std_c) + (grey_mean - mean_c) / std_c
    (grey_mean,), (grey_std,) = adapt_preprocessing(mean, 1), adapt_preprocessing(std, 1)
    per_unit = weight / torch.tensor(std, dtype=weight.dtype).view(3, 1, 1)
    shifts = grey_mean - torch.tensor(mean, dtype=weight.dtype).view(3, 1, 1)
    return (per_unit * grey_std).sum(dim=1, keepdim=True), bias + (per_unit * shifts).sum(dim=(1, 2, 3))

"""fc6 and fc7, which FCN and DeepLab turn into convolutions: published weights, and what may be chosen of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vggtransfer.encoder.weights import load_weights
from vggtransfer.errors import OptionError


def published_classifier(arch: str, weights: str | Path | None, *, in_channels: int) -> Mapping[str, Tensor]:
    """Tensors `fc6.weight` to `fc8.bias` of the weights that an encoder is to have; empty if there are none.

    To be called before the encoder loads them, so that a download serves both.

    Raises:
        OptionError: Unknown architecture.
        WeightsError: Weights that cannot be found, verified or matched.
    """
    if weights is None or weights == "none":
        return {}
    return load_weights(arch, weights, classifier="if present", in_channels=in_channels).classifier


def check_fully_connected(*, hidden_channels: int | None, dropout: float) -> None:
    """Refuses numbers that the layers cannot be built with.

    Raises:
        OptionError: There is one.
    """
    if hidden_channels is not None and hidden_channels < 1:
        raise OptionError(f"hidden_channels={hidden_channels} is not possible: there must be at least 1")
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout={dropout} is not possible: it must be at least 0 and below 1")

"""What style transfer minimises: distance from the content of one picture and from the style of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vggtransfer.data.resampling import Picture
from vggtransfer.encoder.vgg import checked_layers
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.style import gram_matrix
from vggtransfer.perceptual.trunk import LossTrunk


@dataclass(frozen=True)
class StyleWeights:
    """How much each part of the objective counts; see `StyleObjective`."""

    content: float
    style: float
    smoothness: float


@dataclass(frozen=True)
class StyleTerms:
    """The objective and its parts, unweighted; scalars."""

    total: Tensor
    content: Tensor
    style: Tensor
    smoothness: Tensor


class StyleObjective:
    """Content and style loss of Gatys et al. 2016 (equations 1, 4 and 5), each relative to that of an empty picture.

    In the paper a layer's loss grows with the fourth power of its activations, so that the ratio of the weights has to
    be found anew for every network. Here each layer's squared error is divided by the squared norm of its target:

        content = mean over layers of |F - P|^2 / |P|^2        F, P: maps of the picture and of the content
        style   = mean over layers of |G - A|^2 / |A|^2        G, A: Gram matrices of the picture and of the style

    1 is then the error of a picture that shows nothing, and the same weights serve any VGG. `smoothness` is the mean
    squared difference between neighbouring pixels (total variation, squared).

    Args:
        trunk: The frozen VGG.
        content_layers: Taps whose maps are compared.
        style_layers: Taps whose Gram matrices are compared.
        weights: Of the three parts.

    Raises:
        OptionError: A layer that the trunk does not have, or a weight that is negative.
    """

    def __init__(
        self,
        trunk: LossTrunk,
        *,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
        weights: StyleWeights,
    ) -> None:
        for name, value in vars(weights).items():
            if not value >= 0:
                raise OptionError(f"--{name}-weight {value} is not possible: use 0 or more")
        self.trunk = trunk
        self.weights = weights
        self.content_layers = checked_layers(content_layers, trunk.architecture)
        self.style_layers = checked_layers(style_layers, trunk.architecture)
        self._style: dict[str, Tensor] = {}
        self._layers = {*self.content_layers, *self.style_layers}

    def check_size(self, picture: Picture, *, option: str, path: Path) -> None:
        """Finds a picture that the layers cannot look at.

        Args:
            picture: uint8 RGB [height, width, 3], of the smallest size it will have.
            option: Where it was given.
            path: Its file.

        Raises:
            OptionError: It is too small.
        """
        height, width = picture.shape[:2]
        minimum = self.trunk.shape_for(self._layers).minimum
        if min(height, width) < minimum:
            raise OptionError(
                f"--{option} {path}: would be worked on at {width}x{height} pixels, of which the layers need {minimum} "
                "in both directions; crop it to be less elongated, use a larger size, fewer scales or earlier layers"
            )

    @torch.no_grad()
    def set_style(self, style: Tensor) -> None:
        """Keeps the Gram matrices of a picture [1, 3, height, width], of any size."""
        self._style = {
            name: gram_matrix(maps)
            for name, maps in self.trunk.taps(style, self.style_layers).items()
            if name in self.style_layers
        }

    @torch.no_grad()
    def content_of(self, pictures: Tensor) -> dict[str, Tensor]:
        """Returns the maps that `terms` compares with, of pictures [batch, 3, height, width]."""
        taps = self.trunk.taps(pictures, self.content_layers)
        return {name: taps[name].float() for name in self.content_layers}

    def terms(self, pictures: Tensor, content: dict[str, Tensor]) -> StyleTerms:
        """Compares pictures [batch, 3, height, width] with their contents and with the style; means over the batch."""
        taps = self.trunk.taps(pictures, self._layers)
        with torch.autocast(pictures.device.type, enabled=False):
            content_term = torch.stack(
                [_relative_error(taps[name].float(), content[name]) for name in self.content_layers]
            ).mean()
            style_term = torch.stack(
                [_relative_error(gram_matrix(taps[name]), self._style[name]) for name in self.style_layers]
            ).mean()
            x = pictures.float()
            smoothness = x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean()
        weights = self.weights
        total = weights.content * content_term + weights.style * style_term + weights.smoothness * smoothness
        return StyleTerms(total, content_term, style_term, smoothness)


def _relative_error(value: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of |value - target|^2 / |target|^2; one target may stand for all."""
    error = (value - target).square().flatten(1).sum(dim=1)
    return (error / target.square().flatten(1).sum(dim=1).clamp_min(1e-12)).mean()

"""From batches of pictures to unit vectors: trunk, pooling, scales."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.encoder.weights import load_weights
from vggtransfer.errors import WeightsError
from vggtransfer.features.encoder_choice import Trunk
from vggtransfer.features.pooling import pool_maps
from vggtransfer.retrieval.embedding_choice import EmbeddingChoice


class FullyConnected:
    """fc6 and fc7 of the published networks as an embedding ("neural codes", Babenko et al. 2014).

    Args:
        classifier: `fc6.weight` [4096, 25088], `fc6.bias`, and those of fc7.
        layer: Whose output to return; `fc*` is before ReLU, `relu*` behind it.
        device: Where to compute.
        compute_type: Type of the matrix products.
    """

    def __init__(
        self, classifier: Mapping[str, Tensor], layer: str, *, device: torch.device, compute_type: torch.dtype
    ) -> None:
        self._layer = layer
        self._weights = {
            name: classifier[name].to(device, compute_type)
            for name in ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias")
            if name[2] <= layer[-1]
        }

    def __call__(self, maps: Tensor) -> Tensor:
        """Turns pool5 [batch, 512, height, width], averaged to 7 x 7 places, into float32 [batch, 4096]."""
        weights = self._weights
        x = F.adaptive_avg_pool2d(maps, 7).flatten(1).to(weights["fc6.weight"].dtype)
        x = F.linear(x, weights["fc6.weight"], weights["fc6.bias"])
        if self._layer == "fc6":
            return x.float()
        x = F.relu(x)
        if self._layer == "relu6":
            return x.float()
        x = F.linear(x, weights["fc7.weight"], weights["fc7.bias"])
        return (F.relu(x) if self._layer == "relu7" else x).float()


def load_classifier_layers(choice: EmbeddingChoice) -> dict[str, Tensor]:
    """Loads `fc6.weight` to `fc7.bias` if one of these layers was asked for, else nothing.

    Raises:
        WeightsError: The weights do not hold them.
    """
    if not choice.fully_connected:
        return {}
    weights = choice.encoder.weights
    if weights is None or weights == "none":
        raise WeightsError("random weights have no fully connected layers; take another layer")
    found = load_weights(choice.encoder.arch, weights, classifier=True).classifier
    return {name: tensor for name, tensor in found.items() if not name.startswith("fc8")}


class Descriptor:
    """Computes the unit vectors of pictures.

    The vector of one scale is that of each layer scaled to length 1, put one after the other, and scaled again. Those
    of several scales are averaged (Gordo et al. 2017, section 5.3) and scaled once more.

    Args:
        trunk: Gives the maps of the layers.
        choice: Which layers, pooling and scales.
        fully_connected: Takes the place of the pooling.
    """

    def __init__(self, trunk: Trunk, choice: EmbeddingChoice, *, fully_connected: FullyConnected | None) -> None:
        self._trunk, self._choice, self._fully_connected = trunk, choice, fully_connected

    def __call__(self, pictures: Tensor) -> Tensor:
        """Turns pictures [batch, 3, height, width], uint8 or float in [0, 1], into float32 [batch, features]."""
        with torch.inference_mode():
            parts = [self._of_scale(_resized(pictures, scale)) for scale in self._choice.scales]
            return parts[0] if len(parts) == 1 else F.normalize(torch.stack(parts).mean(dim=0), dim=1)

    def _of_scale(self, pictures: Tensor) -> Tensor:
        maps = self._trunk(pictures)
        if self._fully_connected is not None:
            return F.normalize(self._fully_connected(maps["pool5"]), dim=1)
        choice = self._choice
        vectors = [
            F.normalize(pool_maps(maps[layer], choice.pool, exponent=choice.exponent), dim=1) for layer in choice.taps
        ]
        return vectors[0] if len(vectors) == 1 else F.normalize(torch.cat(vectors, dim=1), dim=1)


def _resized(pictures: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return pictures
    floats = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
    size = [round(side * scale) for side in pictures.shape[2:]]
    return F.interpolate(floats, size, mode="bilinear", antialias=True)

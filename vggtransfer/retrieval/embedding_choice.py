"""What an embedding is made of, chosen and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vggtransfer.encoder.architectures import architecture
from vggtransfer.errors import OptionError
from vggtransfer.features.encoder_choice import EncoderChoice, choose_encoder
from vggtransfer.features.layer_choice import layer_names, map_shape
from vggtransfer.features.pooling import GEM_EXPONENT, PoolName

ClassifierLayer = Literal["fc6", "relu6", "fc7", "relu7"]

# Tolias et al. 2016, Radenovic et al. 2018: the last map, for networks trained on ImageNet.
_LAYER = "pool5"
_POOL: PoolName = "gem"
# Of the network in the package, trained on 64-pixel pictures, the earlier maps of larger ones tell more.
_SMALL_NETWORK = "vgg16_bn_x0_25"
_SMALL_LAYER, _SMALL_IMAGE_SIZE = "relu3_3,relu4_3", 112
_SMALL_POOL: PoolName = "rmac"


@dataclass(frozen=True)
class EmbeddingChoice:
    """All that decides what vector a picture has, but for a whitening.

    Attributes:
        encoder: The network and what it is shown.
        layers: The layers asked for.
        pool: How their maps become vectors; `none` for a fully connected layer.
        exponent: Of GeM.
        scales: Factors on the side of the pictures.
        features: Length of the vectors.
    """

    encoder: EncoderChoice
    layers: tuple[str, ...]
    pool: PoolName
    exponent: float
    scales: tuple[float, ...]
    features: int

    @property
    def fully_connected(self) -> str | None:
        """The fully connected layer asked for, if it is one."""
        return self.layers[0] if self.layers[0] in get_args(ClassifierLayer) else None

    @property
    def taps(self) -> tuple[str, ...]:
        """The layers of the trunk that are needed."""
        return ("pool5",) if self.fully_connected else self.layers


def choose_embedding(
    *,
    arch: str | None,
    model: Path | None,
    weights: str,
    layer: str | None,
    pool: PoolName | None,
    scales: Sequence[float],
    image_size: int | None,
    crop_fraction: float | None,
) -> EmbeddingChoice:
    """Completes what was asked for, see `Embedder` for the arguments and defaults.

    Raises:
        OptionError: An argument that cannot be used; the message names it.
        WeightsError: The model is none of this package.
    """
    if model is not None and (arch is not None or weights != "default"):
        name, value = ("arch", arch) if arch is not None else ("weights", weights)
        raise OptionError(f"model={model} brings its own encoder; leave out {name}={value}, or the model")
    small = model is None and arch == _SMALL_NETWORK and weights in ("default", "embedded")
    layers = layer_names(layer or (_SMALL_LAYER if small else _LAYER))
    connected = [name for name in layers if name in get_args(ClassifierLayer)]
    if connected and (len(layers) > 1 or pool not in (None, "none")):
        raise OptionError(f"layer={layer}: {connected[0]} is a vector already; leave out pool and other layers")
    if pool not in (None, *get_args(PoolName)) or (pool == "none" and not connected):
        known = ", ".join(name for name in get_args(PoolName) if name != "none")
        raise OptionError(f"pool={pool} is not possible: use {known}")
    if image_size is None and small:
        image_size = _SMALL_IMAGE_SIZE
    encoder = choose_encoder(
        arch=arch, weights=weights, model=model, image_size=image_size, crop_fraction=crop_fraction
    )
    if not 0 < encoder.crop_fraction <= 1:
        raise OptionError(f"crop_fraction={crop_fraction} is not possible: it must be above 0 and at most 1")
    chosen_pool: PoolName = "none" if connected else pool or (_SMALL_POOL if small else _POOL)
    chosen_scales = _checked_scales(scales)
    layout = architecture(encoder.arch)
    widths = [
        map_shape(layout, name, image_size=round(scale * encoder.image_size))[0]
        for scale in chosen_scales
        for name in (("pool5",) if connected else layers)
    ]
    return EmbeddingChoice(
        encoder=encoder,
        layers=layers,
        pool=chosen_pool,
        exponent=_exponent(encoder.weights) if chosen_pool == "gem" else GEM_EXPONENT,
        scales=chosen_scales,
        features=4096 if connected else sum(widths) // len(chosen_scales),
    )


def _checked_scales(scales: Sequence[float]) -> tuple[float, ...]:
    chosen = tuple(float(scale) for scale in scales)
    if not chosen or not all(0.1 <= scale <= 4 for scale in chosen) or len(set(chosen)) < len(chosen):
        raise OptionError(f"scales={list(chosen)} is not possible: give one or more, each once, from 0.1 to 4")
    return chosen


def _exponent(weights: str | Path | None) -> float:
    """The p of GeM that a model has learnt for its head; without one the usual."""
    path = Path(str(weights)).expanduser()
    path = path / "model.safetensors" if path.is_dir() else path
    if path.suffix != ".safetensors" or not path.is_file():
        return GEM_EXPONENT
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = "head.pool.exponent" in file.keys()  # noqa: SIM118 (not a mapping)
            return float(file.get_tensor("head.pool.exponent")) if found else GEM_EXPONENT
    except SafetensorError:
        return GEM_EXPONENT  # whoever loads the weights says what is wrong

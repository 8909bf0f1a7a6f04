"""Distances and similarities that the commands know by name, each with what its values depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vggtransfer.encoder.precision import autocast
from vggtransfer.errors import InputError, OptionError, did_you_mean
from vggtransfer.features.encoder_choice import load_encoder
from vggtransfer.perceptual.dists import DISTS
from vggtransfer.perceptual.feature_loss import FeatureLoss
from vggtransfer.perceptual.lpips import LPIPS
from vggtransfer.perceptual.measure_names import MEASURE_NAMES

_SSIM_WINDOW = 11  # of Wang et al. 2004, and of torchmetrics


@dataclass(frozen=True)
class Measurement:
    """Values of a batch.

    Attributes:
        values: One per pair, [batch].
        layers: What each layer adds to them, [batch] each; empty for measures without layers.
    """

    values: Tensor
    layers: Mapping[str, Tensor]


class Measure(Protocol):
    """Compares batches of pictures [batch, 3, height, width] in [0, 1]."""

    @property
    def name(self) -> str:
        """As tables and files call it."""
        ...

    @property
    def closer_is_higher(self) -> bool:
        """True for similarities, False for distances."""
        ...

    @property
    def stamp(self) -> Mapping[str, str]:
        """What values depend on besides the pictures."""
        ...

    def __call__(self, x: Tensor, y: Tensor, /) -> Measurement:
        """Compares; raises InputError for pictures that this measure cannot compare."""
        ...


class PerceptualMeasure:
    """LPIPS or DISTS; the name says so where they are not weighed by what was learned from people.

    Attributes:
        loss: The loss itself.
    """

    closer_is_higher = False

    def __init__(self, loss: LPIPS | DISTS, *, compute_type: torch.dtype, resize: str) -> None:
        self.loss: FeatureLoss = loss
        stamp = replace(loss.stamp, resize=resize)
        self.name = stamp.metric.replace(", ", "-")
        self.stamp = {**stamp.as_dict(), "precision": str(compute_type).removeprefix("torch.")}
        self._compute_type = compute_type

    def __call__(self, x: Tensor, y: Tensor, /) -> Measurement:
        with self._context(x):
            layers = self.loss.layer_values(x, y)
        return Measurement(torch.stack(list(layers.values())).sum(dim=0), layers)

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns where they differ, [batch, 1, height, width]; LPIPS only."""
        assert isinstance(self.loss, LPIPS)
        with self._context(x):
            return self.loss.distance_map(x, y)

    def _context(self, x: Tensor) -> ExitStack:
        contexts = ExitStack()
        contexts.enter_context(torch.no_grad())
        contexts.enter_context(autocast(x.device, self._compute_type))
        return contexts


class PeakSignalToNoise:
    """PSNR in decibels over all pixels and channels, by torchmetrics; infinite for equal pictures."""

    name = "psnr"
    closer_is_higher = True

    def __init__(self, *, resize: str) -> None:
        self.stamp = {"metric": "psnr", "data_range": "1", "channels": "RGB", "input_range": "[0, 1]", "resize": resize}

    def __call__(self, x: Tensor, y: Tensor, /) -> Measurement:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        values: Tensor = peak_signal_noise_ratio(x, y, data_range=1.0, dim=(1, 2, 3), reduction="none")
        return Measurement(values, {})


class StructuralSimilarity:
    """SSIM (Wang et al. 2004) by torchmetrics: Gaussian window of 11 pixels, on each of R, G and B, averaged."""

    name = "ssim"
    closer_is_higher = True

    def __init__(self, *, resize: str) -> None:
        self.stamp = {
            "metric": "ssim",
            "window": "Gaussian, sigma 1.5, 11 pixels",
            "channels": "RGB, each by itself",
            "input_range": "[0, 1]",
            "resize": resize,
        }

    def __call__(self, x: Tensor, y: Tensor, /) -> Measurement:
        from torchmetrics.functional.image import structural_similarity_index_measure

        if min(x.shape[2:]) < _SSIM_WINDOW:
            raise InputError(f"pictures of {x.shape[3]}x{x.shape[2]} pixels are too small for ssim's window of 11")
        values = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
        assert isinstance(values, Tensor)
        return Measurement(values, {})


def build_measures(
    names: Sequence[str],
    *,
    net: str,
    weights: str | Path | None,
    heads: str,
    dists_heads: str,
    compute_type: torch.dtype,
    resize: str,
) -> list[Measure]:
    """Builds the measures that were asked for, in that order.

    Args:
        names: Out of `MEASURE_NAMES`.
        net: Architecture of the trunk of lpips and dists.
        weights: Its weights, as for `VGGEncoder`; None are random ones of seed 0.
        heads: Of lpips: `"none"`, `"lpips"`, a file, or `"auto"`: the published ones where they fit, on vgg16.
        dists_heads: Of dists, likewise: `"none"`, `"DISTS_pytorch"`, a file, or `"auto"`.
        compute_type: Of the trunk.
        resize: What is done to pictures before they are compared, for the stamps.

    Raises:
        OptionError: An unknown name, or one given twice.
        WeightsError: Weights or heads that cannot be found or do not fit.
    """
    for name in names:
        if name not in MEASURE_NAMES:
            raise OptionError(
                f"--metric {name} is not possible: use {', '.join(MEASURE_NAMES)}{did_you_mean(name, MEASURE_NAMES)}"
            )
    if not names or len(set(names)) < len(names):
        raise OptionError(f"--metric {','.join(names)}: name at least one metric, each once")
    encoder = load_encoder(net, weights) if {"lpips", "dists"} & set(names) else None
    measures: list[Measure] = []
    for name in names:
        if name == "psnr":
            measures.append(PeakSignalToNoise(resize=resize))
        elif name == "ssim":
            measures.append(StructuralSimilarity(resize=resize))
        else:
            assert encoder is not None
            loss = (
                LPIPS(encoder, heads=_chosen_heads(heads, "lpips", net))
                if name == "lpips"
                else DISTS(encoder, heads=_chosen_heads(dists_heads, "DISTS_pytorch", net))
            )
            measures.append(PerceptualMeasure(loss, compute_type=compute_type, resize=resize))
    return measures


def _chosen_heads(given: str, published: str, net: str) -> str | None:
    if given == "auto":
        return published if net == "vgg16" else None
    return None if given == "none" else given

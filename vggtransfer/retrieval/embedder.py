"""Embedder: pictures to unit vectors, always in the same way, and able to say which."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggtransfer.data.cores import usable_cores
from vggtransfer.data.resampling import Picture
from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.input_check import check_range
from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.encoder.weight_sources import SOURCE_NAMES
from vggtransfer.errors import BadImageError, OptionError, WeightsError
from vggtransfer.features.encoder_choice import (
    FeaturePrecision,
    Trunk,
    choose_device,
    compute_type,
    load_encoder,
    resolved_precision,
)
from vggtransfer.features.frozen_trunk import FrozenTrunk
from vggtransfer.features.given_pictures import GivenPicture, as_pictures, read_picture
from vggtransfer.features.pooling import PoolName
from vggtransfer.features.processes import share_of_work
from vggtransfer.features.quantized_trunk import QuantizedTrunk
from vggtransfer.features.read_ahead import read_ahead
from vggtransfer.retrieval.descriptor import Descriptor, FullyConnected, load_classifier_layers
from vggtransfer.retrieval.embedding_choice import choose_embedding
from vggtransfer.retrieval.whitening import Whitening

_CALIBRATION_PICTURES = 64

_Given = TypeVar("_Given")
_Read = TypeVar("_Read")


class Embedder:
    """Turns pictures into unit vectors whose inner product tells how alike they are.

    The defaults for the network in the package are what measured best by label on flowers12's training pictures, of
    five layers and some combinations, five poolings and four sizes (tests/benchmarks/retrieval_quality.py has what
    they reach elsewhere). Those for other networks are the papers'.

    Args:
        arch: Architecture; None: vgg16, or that of the model.
        model: Run directory of `finetune`, instead of arch and weights: its encoder, and pictures of its size.
        weights: `default`, `torchvision`, `timm`, `embedded`, a checkpoint file, or `none` for random ones, which are
            the same in every process.
        layer: Name from the papers, such as `pool5` or `relu4_3`, or several separated by commas, whose unit vectors
            are put one after the other. `fc6`, `relu6`, `fc7` or `relu7` of a published network take the place of the
            pooling. None: `pool5`, for the network in the package `relu3_3,relu4_3`.
        pool: See `vggtransfer.features.pooling.PoolName`. None: `gem`, with the exponent that a model of
            `finetune --head arcface` has learnt; for the network in the package `rmac`.
        scales: Factors on the side of the pictures; the vectors of several are averaged.
        image_size: Side of the square that a picture is resized and cropped to, in pixels; None: 224, for the
            network in the package 112, or that of the model.
        crop_fraction: Part of the short side that is kept; None: 0.875, for pictures below 96 pixels 1, or that of the
            model.
        precision: Of the computation: `auto` uses bfloat16 where the hardware is good at it, else float32. `int8` is
            for CPUs; it is calibrated on up to 64 of the first pictures that are embedded.
        device: `auto` takes a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`.
        whitening: Applied to each vector.
        batch_size: Pictures per pass through the network, where pictures are read here.
        workers: Threads that decode and resize pictures; None: one per core, at most 8.

    Attributes:
        description: All that the vectors depend on, ready for JSON or YAML.
        dimension: Length of the vectors.
        image_size: Side of the square that a picture becomes.
        crop_fraction: Part of the short side that is kept.
        weights: A name or a path that gives the same weights again, also those of a model.
        of_model: Whether that path is to be given as `model`.
        device: Where the network is.
        whitening: What is applied to each vector.

    Raises:
        OptionError: An argument that cannot be used; the message names it.
        WeightsError: Weights that cannot be found, verified or matched.
    """

    def __init__(
        self,
        arch: ArchitectureName | None = None,
        *,
        model: Path | None = None,
        weights: str = "default",
        layer: str | None = None,
        pool: PoolName | None = None,
        scales: Sequence[float] = (1.0,),
        image_size: int | None = None,
        crop_fraction: float | None = None,
        precision: FeaturePrecision = "auto",
        device: str = "auto",
        whitening: Whitening | None = None,
        batch_size: int = 64,
        workers: int | None = None,
    ) -> None:
        if batch_size < 1 or (workers is not None and workers < 1):
            raise OptionError(f"batch_size={batch_size} and workers={workers} must be at least 1")
        choice = choose_embedding(
            arch=arch,
            model=model,
            weights=weights,
            layer=layer,
            pool=pool,
            scales=scales,
            image_size=image_size,
            crop_fraction=crop_fraction,
        )
        self._choice, self.of_model = choice, model is not None
        self.weights = _same_anywhere(str(choice.encoder.weights))
        self.image_size, self.crop_fraction = choice.encoder.image_size, choice.encoder.crop_fraction
        self._batch_size, self._workers = batch_size, workers or min(usable_cores(), 8)
        self.device = choose_device(device, precision, local_rank=share_of_work().local_rank)
        self._precision = resolved_precision(precision, self.device)
        # The classifier before the encoder, so that a download serves both.
        classifier = load_classifier_layers(choice)
        self._encoder = load_encoder(choice.encoder.arch, choice.encoder.weights)
        self._fully_connected = None
        if choice.fully_connected:
            self._fully_connected = FullyConnected(
                classifier, choice.fully_connected, device=self.device, compute_type=compute_type(self._precision)
            )
        self._network_description: dict[str, Any] = {
            "architecture": choice.encoder.arch,
            "weights": self._encoder.digest,
            "classifier": weights_digest(classifier) if classifier else None,
            "layer": ",".join(choice.layers),
            "pool": choice.pool,
            "gem_exponent": choice.exponent if choice.pool == "gem" else None,
            "scales": list(choice.scales),
            "image_size": self.image_size,
            "crop_fraction": self.crop_fraction,
        }
        self._descriptor: Descriptor | None = None
        if self._precision != "int8":
            kind = compute_type(self._precision)
            self._use(FrozenTrunk(self._encoder, choice.taps, device=self.device, compute_type=kind))
        self.whitening: Whitening | None = None
        self._set_whitening(whitening)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._choice.features if self.whitening is None else self.whitening.dimension

    @property
    def description(self) -> dict[str, Any]:
        """All that the vectors depend on but for rounding, in plain values for JSON or YAML."""
        return {
            **self._network_description,
            "whitening": None if self.whitening is None else self.whitening.digest,
            "dimension": self.dimension,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the description: embedders with the same one give vectors that may be compared.

        Precision and device are not part of it: what differs by rounding may be compared.
        """
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()

    @property
    def origin(self) -> str:
        """Where the weights came from."""
        return self._encoder.origin

    @property
    def precision(self) -> str:
        """What `auto` became: `fp32`, `bf16`, `fp16` or `int8`."""
        return self._precision

    def with_whitening(self, whitening: Whitening | None) -> Self:
        """Returns an embedder with another whitening, or none, that shares the network with this one.

        Raises:
            OptionError: It is for vectors of another length.
        """
        other = copy.copy(self)
        other._set_whitening(whitening)
        return other

    def embed(self, pictures: Tensor) -> NDArray[np.float32]:
        """Embeds pictures as they are, without resizing.

        Args:
            pictures: [batch, 3, height, width], RGB, uint8, or float in [0, 1]; on any device.

        Returns:
            Unit vectors, float32 [batch, dimension].

        Raises:
            InputError: Pictures of the wrong rank, channels, size or range.
            OptionError: The network gives no numbers in this precision.
            WeightsError: It gives none in any.
        """
        if pictures.dtype != torch.uint8:
            check_range(pictures, normalize=True)
        if self._descriptor is None:
            self._calibrate(pictures)
        assert self._descriptor is not None
        vectors = self._descriptor(pictures).cpu()
        if not vectors.isfinite().all():
            found = f"{self._encoder.architecture.name} gives NaN or infinity in precision={self._precision}"
            if self._precision == "fp32":
                raise WeightsError(f"{found}: its weights are damaged")
            raise OptionError(f"{found}; use precision=fp32")
        rows = cast("NDArray[np.float32]", vectors.numpy())
        return rows if self.whitening is None else self.whitening(rows)

    def embed_pictures(self, pictures: Sequence[GivenPicture]) -> NDArray[np.float32]:
        """Embeds paths, PIL images or arrays (see `vggtransfer.VGGFeatures`), each resized and cropped to the square.

        Returns:
            Unit vectors, float32 [pictures, dimension].

        Raises:
            BadImageError: A file cannot be decoded; the message starts with its path.
            InputError: Something is no picture, or there is none.
        """
        batches = self._read(as_pictures(pictures), self._square)
        return np.concatenate([self.embed(_stacked(batch)) for batch in batches])

    def embed_files(self, paths: Sequence[Path]) -> Iterator[tuple[Path, NDArray[np.float32] | BadImageError]]:
        """Embeds files in their order, a batch at a time while the next one is being decoded.

        Yields:
            Each path with its unit vector, float32 [dimension], or with the reason why it has none.
        """
        if self._descriptor is None and paths:
            self._calibrate_on_files(paths)
        at = 0
        for batch in self._read(paths, self._square_or_error):
            good = [picture for picture in batch if not isinstance(picture, BadImageError)]
            vectors = iter(self.embed(_stacked(good))) if good else iter(())
            for picture in batch:
                yield paths[at], picture if isinstance(picture, BadImageError) else next(vectors)
                at += 1

    def _set_whitening(self, whitening: Whitening | None) -> None:
        if whitening is not None and len(whitening.mean) != self._choice.features:
            raise OptionError(
                f"the whitening is for vectors of {len(whitening.mean)} numbers, but {','.join(self._choice.layers)} "
                f"of {self._choice.encoder.arch} gives {self._choice.features}; learn it with this encoder"
            )
        self.whitening = whitening

    def _use(self, trunk: Trunk) -> None:
        self._descriptor = Descriptor(trunk, self._choice, fully_connected=self._fully_connected)

    def _calibrate(self, pictures: Tensor) -> None:
        if pictures.dtype != torch.uint8:
            pictures = (pictures * 255).round().clamp(0, 255).to(torch.uint8)
        self._use(QuantizedTrunk(self._encoder, self._choice.taps, [pictures]))

    def _calibrate_on_files(self, paths: Sequence[Path]) -> None:
        step = max(1, len(paths) // _CALIBRATION_PICTURES)
        chosen = paths[::step][:_CALIBRATION_PICTURES]
        read = (picture for batch in self._read(chosen, self._square_or_error) for picture in batch)
        good = [picture for picture in read if not isinstance(picture, BadImageError)]
        if good:
            self._calibrate(_stacked(good))

    def _square(self, given: GivenPicture) -> Picture:
        return read_picture(given, image_size=self.image_size, crop_fraction=self.crop_fraction)

    def _square_or_error(self, path: Path) -> Picture | BadImageError:
        try:
            return self._square(path)
        except BadImageError as error:
            return error

    def _read(self, given: Sequence[_Given], read: Callable[[_Given], _Read]) -> Iterator[list[_Read]]:
        return read_ahead(given, read, batch_size=self._batch_size, workers=self._workers)


def _stacked(pictures: Sequence[Picture]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def _same_anywhere(weights: str) -> str:
    """The weights as they can be asked for from another working directory."""
    if weights in (*SOURCE_NAMES, "default", "none"):
        return weights
    path = Path(weights).expanduser()
    return str(path.resolve()) if path.exists() else weights

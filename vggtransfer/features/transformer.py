"""VGGFeatures: pictures to features as a scikit-learn transformer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from vggtransfer.data.cores import usable_cores
from vggtransfer.data.resampling import Picture
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import OptionError, WeightsError
from vggtransfer.features.given_pictures import GivenPicture, as_pictures, read_picture
from vggtransfer.features.layer_choice import feature_shapes
from vggtransfer.features.pooling import PoolName, pool_maps
from vggtransfer.features.read_ahead import read_ahead

if TYPE_CHECKING:
    from vggtransfer.features.frozen_trunk import FrozenTrunk


class VGGFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns pictures into the features of one layer of a VGG, for scikit-learn.

    Pictures are a list, tuple, Series or array of paths, PIL images or arrays, or one array [n, height, width, 3] or
    [n, 3, height, width] of uint8 or of floats in [0, 1] (which are rounded to 8 bits). Each is resized and cropped to
    the central square as `vggtransfer extract` does it.

    Nothing is learnt from the pictures: `fit` checks the parameters and loads the encoder, and `transform` works
    without it. A pickled, cloned or copied transformer has the parameters only; each process loads the encoder when it
    is first needed. In a search with `GridSearchCV`, `Pipeline(memory=...)` saves computing the same features again.

    Args:
        arch: Architecture; see `vggtransfer.VGGEncoder`.
        weights: `"default"`, `"torchvision"`, `"timm"`, `"embedded"`, a checkpoint file, a run directory, or None for
            random ones, which are the same in every process.
        layer: Name from the papers, such as `pool5` or `relu4_3`; nothing past it is computed.
        pool: `gap`, `max`, `gem`, `rmac`, `crow` or `none`; see `vggtransfer.features.pooling.PoolName`.
        image_size: Side of the square pictures the network sees, in pixels.
        crop_fraction: Part of the short side that is kept; None: 0.875, for pictures below 96 pixels 1.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        batch_size: Pictures per pass through the network.
        workers: Threads that decode and resize pictures; None: one per core, at most 8.
    """

    def __init__(
        self,
        arch: str = "vgg16",
        *,
        weights: str | Path | None = "default",
        layer: str = "pool5",
        pool: PoolName = "gap",
        image_size: int = 224,
        crop_fraction: float | None = None,
        precision: Precision = "auto",
        device: str = "auto",
        batch_size: int = 64,
        workers: int | None = None,
    ) -> None:
        self.arch = arch
        self.weights = weights
        self.layer = layer
        self.pool = pool
        self.image_size = image_size
        self.crop_fraction = crop_fraction
        self.precision = precision
        self.device = device
        self.batch_size = batch_size
        self.workers = workers

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ARG002, N803  (scikit-learn's names)
        """Checks the parameters and that there are pictures, and loads the encoder.

        Raises:
            VGGTransferError: A parameter, the weights or the pictures cannot be used.
        """
        as_pictures(X)
        self._trunk()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Computes the features.

        Args:
            X: Pictures, see above.

        Returns:
            float32 [pictures, features]; without pooling the maps, flattened channels first.

        Raises:
            BadImageError: A file cannot be decoded; the message starts with its path.
            VGGTransferError: A parameter, the weights or the pictures cannot be used.
        """
        import torch

        pictures = as_pictures(X)
        trunk = self._trunk()
        rows = []
        for batch in self._batches(pictures):
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
            rows.append(pool_maps(trunk(pixels)[self.layer], self.pool).flatten(1).cpu())
        features = torch.cat(rows)
        if not features.isfinite().all():
            found = f"{self.layer} of {self.arch} gives NaN or infinity in precision={self.precision}"
            if self.precision == "fp32":
                raise WeightsError(f"{found}: its weights are damaged")
            raise OptionError(f"{found}; use precision='fp32'")
        return features.numpy()

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:  # noqa: ARG002
        """Names the columns: `pool5_0`, `pool5_1`, ..."""
        count = math.prod(self._shape())
        return np.array([f"{self.layer}_{number}" for number in range(count)], dtype=object)

    def _shape(self) -> tuple[int, ...]:
        return feature_shapes(self.arch, [self.layer], image_size=self.image_size, pool=self.pool)[self.layer]

    def _batches(self, pictures: Sequence[GivenPicture]) -> Iterator[list[Picture]]:
        from vggtransfer.data.transforms import default_crop_fraction

        fraction = default_crop_fraction(self.image_size) if self.crop_fraction is None else self.crop_fraction

        def read(given: GivenPicture) -> Picture:
            return read_picture(given, image_size=self.image_size, crop_fraction=fraction)

        workers = self.workers or min(usable_cores(), 8)
        return read_ahead(pictures, read, batch_size=self.batch_size, workers=workers)

    def _trunk(self) -> FrozenTrunk:
        """The encoder for the parameters as they are now, loaded when they have changed or this is a new process."""
        from vggtransfer.encoder.precision import resolve_device, resolve_precision
        from vggtransfer.features.encoder_choice import load_encoder
        from vggtransfer.features.frozen_trunk import FrozenTrunk

        self._check_parameters()
        key = (self.arch, self.weights, self.layer, self.precision, self.device)
        if getattr(self, "_loaded", (None, None))[0] != key:
            device = resolve_device(self.device)
            trunk = FrozenTrunk(
                load_encoder(self.arch, self.weights),
                [self.layer],
                device=device,
                compute_type=resolve_precision(self.precision, device),
            )
            self._loaded = key, trunk
        return self._loaded[1]

    def _check_parameters(self) -> None:
        self._shape()
        if self.pool not in get_args(PoolName):
            raise OptionError(f"pool={self.pool!r} is not possible: use {', '.join(get_args(PoolName))}")
        if self.crop_fraction is not None and not 0 < self.crop_fraction <= 1:
            raise OptionError(f"crop_fraction={self.crop_fraction} is not possible: it must be above 0 and at most 1")
        if self.batch_size < 1:
            raise OptionError(f"batch_size={self.batch_size} is not possible: it must be at least 1")
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers={self.workers} is not possible: it must be at least 1")

    def __getstate__(self) -> dict[str, Any]:
        # The weights would make every pickle, and every hash that joblib takes of one, as large as they are.
        return {name: value for name, value in super().__getstate__().items() if name != "_loaded"}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True  # of paths or pictures
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

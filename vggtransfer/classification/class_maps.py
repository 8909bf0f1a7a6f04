"""Where in pictures a classifier finds what speaks for a class, as reports and `vggtransfer explain` show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vggtransfer.classification.model import VGGClassifier
from vggtransfer.data.loader import network_input
from vggtransfer.data.resampling import Picture
from vggtransfer.encoder.precision import Precision, autocast, prefers_channels_last, resolve_precision
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.features.cached_stage import CachedStage
from vggtransfer.features.grad_cam import grad_cam


def class_maps(
    model: VGGClassifier, pictures: Sequence[Picture], classes: Tensor, *, layer: str, precision: Precision
) -> NDArray[np.float32]:
    """Returns the Grad-CAM maps of a batch of pictures, float32 [pictures, rows, columns], each in [0, 1].

    Args:
        model: On its device; left as it is.
        pictures: As the network sees them, uint8 RGB [image_size, image_size, 3].
        classes: int64 [pictures], the classes to ask about.
        layer: Layer to look at.
        precision: See `vggtransfer.encoder.precision.resolve_precision`.

    Raises:
        torch.OutOfMemoryError: No memory for the batch.
    """
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return _maps(model, model.encoder, batch, classes, layer=layer, precision=precision)


def class_maps_of_stage(
    model: VGGClassifier,
    stage: CachedStage,
    places: Sequence[int],
    classes: Tensor,
    *,
    layer: str,
    precision: Precision,
) -> NDArray[np.float32]:
    """Returns the same for validation pictures of a stage, by their places in it, without computing its frozen part.

    Args:
        model: One that the stage fits.
        stage: Where the maps of the frozen part are.
        places: Of the pictures.
        classes: See `class_maps`, as for the rest.
        layer: One behind the frozen part.
        precision: Of the computation.

    Raises:
        torch.OutOfMemoryError: No memory for the batch.
    """
    ((batch, _, _),) = stage.validation_batches([[(0, place) for place in places]])
    return _maps(stage.rest_of(model), model.encoder, batch, classes, layer=layer, precision=precision)


def _maps(
    part: nn.Module, encoder: VGGEncoder, batch: Tensor, classes: Tensor, *, layer: str, precision: Precision
) -> NDArray[np.float32]:
    device = next(part.parameters()).device
    images = network_input(batch, device, channels_last=prefers_channels_last(device))
    with autocast(device, resolve_precision(precision, device)):
        found = grad_cam(part, encoder, images, layer=layer, classes=classes.to(device))
    maps: NDArray[np.float32] = found.relative_maps.cpu().numpy()
    return maps

"""A segmentation network that only answers: BatchNorm folded away, weights converted once, taps let go of at once."""

from __future__ import annotations

import torch
from torch import Tensor

from vggtransfer.segmentation.segmenter import Segmenter


class FrozenSegmenter:
    """What a network answers in evaluation mode, faster and with less memory; see `FrozenTrunk`.

    Args:
        model: The network; it is copied and left as it is.
        device: Where to compute.
        compute_type: `torch.float32`, `torch.bfloat16` or `torch.float16`.
    """

    def __init__(self, model: Segmenter, *, device: torch.device, compute_type: torch.dtype) -> None:
        raise NotImplementedError

    def __call__(self, pictures: Tensor) -> Tensor:
        """Returns logits [batch, classes, height, width] in float32.

        Args:
            pictures: [batch, channels, height, width], uint8, or float in [0, 1]; on any device.

        Raises:
            InputError: Pictures of the wrong rank or channels.
        """
        raise NotImplementedError

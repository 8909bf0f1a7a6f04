"""Square parts of pictures, drawn for training."""

from __future__ import annotations

import numpy as np

from vggtransfer.data.resampling import Picture, resize


class RandomSquare:
    """A random square of the picture, resized, and mirrored every other time.

    The square's side is drawn between `smallest` times the short side and the whole of it. The result depends on
    picture and key only.

    Args:
        size: Side of the result in pixels.
        smallest: Part of the short side, above 0, at most 1.
    """

    min_side: int | None = None

    def __init__(self, size: int, *, smallest: float = 0.6) -> None:
        self.size = size
        self.smallest = smallest

    def __call__(self, image: Picture, *, key: int) -> Picture:
        draw = np.random.default_rng(key)
        height, width = image.shape[:2]
        side = max(1, round(min(height, width) * draw.uniform(self.smallest, 1)))
        top, left = draw.integers(height - side + 1), draw.integers(width - side + 1)
        square = resize(image[top : top + side, left : left + side], self.size, self.size)
        return square[:, ::-1] if draw.integers(2) else square

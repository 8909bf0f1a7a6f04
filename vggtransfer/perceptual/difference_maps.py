"""Pictures of where two pictures differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.resampling import Picture
from vggtransfer.report.heat_maps import overlay

_GAP = 8
_NOTHING = 1e-6  # equal pictures may be so far apart by rounding


def difference_picture(a: Picture, b: Picture, distances: NDArray[np.float32], *, hottest: float) -> Picture:
    """Sets side by side the first picture, the second, and the second with the distances laid over it as heat.

    Args:
        a: uint8 RGB [height, width, 3].
        b: Likewise, of the same size.
        distances: float32 [height, width], at least 0.
        hottest: The distance that gets the hottest colour; larger ones get it too.

    Returns:
        uint8 RGB [height, 3 * width + 2 * 8, 3].
    """
    heat = (distances / max(hottest, _NOTHING)).clip(0, 1)
    gap = np.full((a.shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([a, gap, b, gap, overlay(b, heat.astype(np.float32))], axis=1)

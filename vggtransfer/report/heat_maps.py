"""A map of small numbers laid over a picture as colours."""

from __future__ import annotations

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from vggtransfer.data.resampling import Picture

_COLOURS = "inferno"


def overlay(picture: Picture, heat: NDArray[np.float32], *, alpha: float = 0.7) -> Picture:
    """Lays a heat map over a picture: the hotter, the more of the colour and the less of the picture.

    What is cold shows the picture in its brightness alone, so that no colour of its own is taken for heat.

    Args:
        picture: uint8 RGB [height, width, 3].
        heat: float32 [rows, columns] in [0, 1], of any size; enlarged smoothly to that of the picture.
        alpha: Opacity of the colours where the map is 1, from 0 (the picture in grey) to 1.

    Returns:
        uint8 RGB [height, width, 3], new.
    """
    height, width = picture.shape[:2]
    # Cubic interpolation would overshoot: faint heat where there is none.
    large = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = heat.shape
    smooth = cv2.GaussianBlur(large, (0, 0), 0.3 * width / columns, sigmaY=0.3 * height / rows)[..., None].clip(0, 1)
    colours = colormaps[_COLOURS](smooth[..., 0])[..., :3] * 255
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    opacity = alpha * smooth**0.5
    mixed: Picture = (opacity * colours + (1 - opacity) * grey + 0.5).clip(0, 255).astype(np.uint8)
    return mixed

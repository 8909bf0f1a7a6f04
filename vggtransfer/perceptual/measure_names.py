"""The names of what pictures are compared by; apart from `measures.py`, because signatures must not import torch."""

from __future__ import annotations

from typing import Literal, get_args

MeasureName = Literal["lpips", "dists", "psnr", "ssim"]
MEASURE_NAMES: tuple[str, ...] = get_args(MeasureName)

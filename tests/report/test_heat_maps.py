from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from vggtransfer.report.heat_maps import overlay
from vggtransfer.report.pictures import graphic_url, photograph_url


def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 200, (48, 32, 3), dtype=np.uint8)


def test_cold_places_show_the_picture_in_grey_and_hot_ones_the_colour() -> None:
    heat = np.zeros((6, 4), dtype=np.float32)
    heat[:3] = 1.0
    picture = photograph()
    before = picture.copy()
    result = overlay(picture, heat, alpha=1.0)
    assert result.shape == picture.shape
    assert result.dtype == np.uint8
    assert np.array_equal(picture, before)
    cold = result[-6:]
    assert np.array_equal(cold[..., 0], cold[..., 1])
    assert np.array_equal(cold[..., 0], cold[..., 2])
    grey = picture[-6:] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(cold[..., 0], grey, atol=1)
    hot = result[:6].reshape(-1, 3)
    assert len(np.unique(hot, axis=0)) == 1  # at alpha 1 nothing of the picture is left
    assert hot[0, 0] > 240  # the light end of the scale


def test_alpha() -> None:
    heat = np.ones((2, 2), dtype=np.float32)
    picture = photograph()
    assert np.ptp(overlay(picture, heat, alpha=0.0).astype(int), axis=2).max() == 0
    half, full = overlay(picture, heat, alpha=0.5).astype(int), overlay(picture, heat, alpha=1.0).astype(int)
    assert 0 < np.ptp(half[..., 0]) < np.ptp(picture[..., 0].astype(int))
    assert np.ptp(full[..., 0]) == 0


def test_heat_is_enlarged_smoothly_and_stays_in_its_place() -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 3] = 1.0
    result = overlay(np.full((64, 64, 3), 128, dtype=np.uint8), heat).astype(int)
    colour = np.abs(result - 128).sum(axis=2)
    top, left = np.unravel_index(colour.argmax(), colour.shape)
    assert top < 16
    assert left >= 48
    assert colour[40:].max() <= 3
    assert np.abs(np.diff(colour, axis=0)).max() < 60  # no edges


def test_data_urls_can_be_read_back() -> None:
    picture = photograph()
    head, _, data = photograph_url(picture).partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (32, 48)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    head, _, data = graphic_url(pixels).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert np.array_equal(np.asarray(image), pixels)

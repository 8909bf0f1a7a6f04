"""One picture: a background, a few flowers of one species with stems and leaves, the light and the camera."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.flowers.backdrops import clouds, paint_backdrop, paint_leaf
from vggtransfer.data.flowers.blooms import PAINTERS
from vggtransfer.data.flowers.painting import (
    Array,
    Canvas,
    Petal,
    Point,
    curve,
    gradient,
    outline,
    paint_petal,
    paint_strand,
)
from vggtransfer.data.flowers.parts import Pose
from vggtransfer.errors import OptionError

SPECIES: tuple[str, ...] = tuple(PAINTERS)
_UPRIGHT = ("bluebell", "tulip")  # seen from the side, on a visible stem


def draw_flower(species: str, *, size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paints one picture with one to four flowers of a species.

    Args:
        species: One of `SPECIES`.
        size: Side of the picture in pixels, at least 16.
        seed: Any non-negative integer; the same one gives the same picture.

    Returns:
        image: uint8 RGB [size, size, 3].
        mask: uint8 [size, size]; 0 for background, stems and leaves, `SPECIES.index(species) + 1` for the flowers.
    """
    if species not in SPECIES:
        raise OptionError(f"species must be one of {', '.join(SPECIES)}, not '{species}'")
    if size < 16:
        raise OptionError(f"size must be at least 16 pixels, not {size}")
    rng = np.random.default_rng([seed, SPECIES.index(species)])
    # Painted larger and averaged down, which smooths all edges.
    factor = max(2, math.ceil(128 / size))
    side = size * factor
    angle = rng.uniform(-math.pi, 0)  # from anywhere above
    canvas = Canvas(paint_backdrop(rng, side), (math.cos(angle), math.sin(angle)))
    _paint_plants(canvas, rng, species)
    image = _photograph(canvas.image, rng, size, angle)
    cover = np.asarray(cv2.resize(canvas.flower, (size, size), interpolation=cv2.INTER_AREA))
    mask = np.where(cover > 0.5, SPECIES.index(species) + 1, 0).astype(np.uint8)
    return image, mask


def _paint_plants(canvas: Canvas, rng: np.random.Generator, species: str) -> None:
    """Paints one main flower and up to three smaller ones behind it, with stems and leaves."""
    green = np.asarray(np.array([0.26, 0.44, 0.16]) * rng.uniform(0.7, 1.15) + rng.normal(0, 0.03, 3), np.float32)
    others = int(rng.choice([0, 0, 1, 1, 2, 3]))
    main = (rng.uniform(0.36, 0.64), rng.uniform(0.36, 0.60))
    radius = rng.uniform(0.26, 0.42)
    placed: list[tuple[Point, float]] = []
    dye_seed = int(rng.integers(2**32))
    mixed = rng.random() < 0.25
    for _ in range(others):
        for _attempt in range(12):
            spot = (rng.uniform(0.05, 0.95), rng.uniform(0.08, 0.92))
            small = radius * rng.uniform(0.45, 0.75)
            if all(math.dist(spot, where) > 0.8 * (small + wide) for where, wide in [(main, radius), *placed]):
                placed.append((spot, small))
                break
    for spot, small in [*sorted(placed, key=lambda item: item[1]), (main, radius)]:
        upright = species in _UPRIGHT
        pose = Pose(
            centre=spot,
            radius=small * (0.82 if upright else 1.0),
            turn=rng.normal(0, 0.22) if upright or species == "pansy" else rng.uniform(0, 2 * math.pi),
            tilt=1.0 if upright else rng.uniform(0.62, 1.0),
            axis=math.pi / 2 + rng.normal(0, 0.5),
        )
        _paint_greenery(canvas, rng, species, pose, green)
        _cast_shadow(canvas, rng, pose)
        dye = np.random.default_rng(rng.integers(2**32) if mixed else dye_seed)
        PAINTERS[species](canvas, rng, pose, dye)
        if spot != main:
            canvas.blur(rng.uniform(0.001, 0.005))


def _paint_greenery(canvas: Canvas, rng: np.random.Generator, species: str, pose: Pose, green: Array) -> None:
    x, y = pose.centre
    if species == "bluebell":
        foot = (x, 1.05)
        blades = 3
    else:
        foot = (x + rng.normal(0, 0.12), 1.1)
        blades = 2
        start = pose.at(math.pi / 2, 0.85) if species == "tulip" else (x, y)
        bow = (x + rng.normal(0, 0.05), (y + 1.1) / 2)
        paint_strand(canvas, curve(start, bow, foot), pose.radius * rng.uniform(0.09, 0.13), 0.9 * green)
    if species in _UPRIGHT:
        for _ in range(blades):
            height = rng.uniform(0.5, 1.0) * (1.1 - y)
            lean = rng.normal(0, 0.35) * height
            blade = Petal(
                outline(rng.uniform(0.07, 0.12), 0.35, 0.75),
                gradient((0, 0.7 * green), (1, 1.15 * green)),
                bend=rng.uniform(-0.3, 0.3),
                veins=0.08,
                vein_count=3,
                crease=0.15,
                roundness=0.4,
                shadow=0,
            )
            paint_petal(canvas, blade, (foot[0], 1.08), (lean, -height), flower=False)
    else:
        for _ in range(int(rng.integers(1, 5))):
            angle = rng.uniform(0, 2 * math.pi)
            length = pose.radius * rng.uniform(0.9, 1.35)
            paint_leaf(canvas, rng, pose.at(angle, 0.25), (angle + pose.turn, length), green * rng.uniform(0.7, 1.1))


def _cast_shadow(canvas: Canvas, rng: np.random.Generator, pose: Pose) -> None:
    """Darkens the background on the side away from the light, so that the flower stands out of it."""
    side = canvas.side
    away = rng.uniform(0.04, 0.12)
    x = (np.arange(side, dtype=np.float32) + 0.5)[None, :] / side - (pose.centre[0] - away * canvas.light[0])
    y = (np.arange(side, dtype=np.float32) + 0.5)[:, None] / side - (pose.centre[1] - away * canvas.light[1])
    reach = 1.1 * pose.radius
    darkness = np.exp(-(((x * x + y * y) / (reach * reach)) ** 2)) * (1 - canvas.flower)
    canvas.image *= (1 - rng.uniform(0.15, 0.45) * darkness)[..., None]


def _photograph(image: Array, rng: np.random.Generator, size: int, light: float) -> NDArray[np.uint8]:
    """Applies what the light, the lens and the sensor add, and averages down to `size`."""
    small = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    x, y = np.meshgrid(np.linspace(-1, 1, size, dtype=np.float32), np.linspace(-1, 1, size, dtype=np.float32))
    warmth = rng.normal(0, 0.05)
    cast = np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth], np.float32)
    slope = 1 + rng.uniform(0, 0.16) * (x * math.cos(light) + y * math.sin(light))
    dapple = 1 + rng.uniform(0, 0.12) * clouds(rng, size, (2, 2), 2)
    vignette = 1 - rng.uniform(0, 0.16) * (x * x + y * y)
    small = np.clip(small * (slope * dapple * vignette)[..., None] * cast * rng.uniform(0.82, 1.12), 0, 1)
    small = small ** np.float32(rng.uniform(0.85, 1.15))
    small += rng.normal(0, rng.uniform(0.004, 0.018), small.shape).astype(np.float32)
    return np.asarray(np.clip(small * 255 + 0.5, 0, 255), np.uint8)

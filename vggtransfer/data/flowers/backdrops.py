"""Backgrounds for synthetic flowers: meadow, sky, soil, blurred foliage, leaves, wall."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from vggtransfer.data.flowers.painting import Array, Canvas, Petal, Point, gradient, outline, paint_petal, smoothstep


def paint_backdrop(rng: np.random.Generator, side: int) -> Array:
    """Returns a random background, float32 RGB [side, side, 3] in [0, 1]."""
    kinds = (_meadow, _sky, _soil, _bokeh, _foliage, _wall)
    image = kinds[rng.integers(len(kinds))](rng, side)
    return np.clip(image, 0, 1)


def clouds(
    rng: np.random.Generator, side: int, coarse: tuple[int, int], octaves: int = 4, decay: float = 0.55
) -> Array:
    """Fractal noise of about -1 to 1; `coarse` tells how many of its largest blobs fit in, as (rows, columns)."""
    total = np.zeros((side, side), np.float32)
    weight = 1.0
    for octave in range(octaves):
        rows, columns = (min(side, n * 2**octave + 1) for n in coarse)
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        total += weight * np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC))
        weight *= decay
    return np.asarray(total * (0.5 / float(total.std() + 1e-6)), np.float32)


def _tint(rng: np.random.Generator, colour: Sequence[float], spread: float = 0.06) -> Array:
    return np.asarray(
        np.clip(np.array(colour) * rng.uniform(0.85, 1.15) + rng.normal(0, spread / 2, 3), 0, 1), np.float32
    )


def _between(amount: Array, low: Array, high: Array) -> Array:
    t = np.clip(amount, 0, 1)[..., None]
    return np.asarray(low * (1 - t) + high * t, np.float32)


def _meadow(rng: np.random.Generator, side: int) -> Array:
    dark, light = _tint(rng, (0.10, 0.24, 0.07)), _tint(rng, (0.45, 0.62, 0.22))
    y = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    image = _between(0.62 - 0.3 * y + 0.35 * clouds(rng, side, (2, 10)), dark, light)
    canvas = Canvas(image, (0.3, -0.95))
    blades = int(rng.integers(50, 90))
    for depth in np.linspace(0, 1, blades):
        height = rng.uniform(0.2, 0.45) * (0.5 + 0.7 * depth)
        x, root = rng.uniform(-0.05, 1.05), 0.35 + 0.85 * depth + rng.uniform(-0.05, 0.05)
        colour = dark + (light - dark) * rng.uniform(0.15, 1.0)
        blade = Petal(
            outline(rng.uniform(0.025, 0.05), 0.25, 0.7),
            gradient((0, 0.55 * colour), (1, 1.1 * colour)),
            bend=rng.uniform(-0.25, 0.25),
            veins=0,
            shadow=0,
        )
        paint_petal(canvas, blade, (x, root), (rng.normal(0, 0.25) * height, -height), flower=False)
        if rng.random() < 0.05:
            canvas.blur(0.006)
    canvas.blur(rng.uniform(0.003, 0.014))
    return canvas.image


def _sky(rng: np.random.Generator, side: int) -> Array:
    y = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    high, low = _tint(rng, (0.28, 0.52, 0.85)), _tint(rng, (0.72, 0.84, 0.94))
    image = _between(np.repeat(y, side, 1), high, low)
    cloud = smoothstep(0.05, 0.9, clouds(rng, side, (3, 2), 5))
    image = _between(cloud * rng.uniform(0.3, 0.95), image, np.array([0.96, 0.96, 0.97], np.float32))
    horizon = rng.uniform(0.6, 1.1)
    ground = _between(
        0.5 + 0.5 * clouds(rng, side, (6, 3)), _tint(rng, (0.16, 0.30, 0.12)), _tint(rng, (0.42, 0.56, 0.25))
    )
    edge = smoothstep(-0.05, 0.05, y - horizon + 0.06 * clouds(rng, side, (1, 4), 2))
    image = _between(edge, image, ground)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.012 * side), np.float32)


def _soil(rng: np.random.Generator, side: int) -> Array:
    dark, light = _tint(rng, (0.17, 0.11, 0.07)), _tint(rng, (0.52, 0.39, 0.27))
    rough = clouds(rng, side, (5, 5), 6, 0.75)
    image = _between(0.42 + 0.45 * rough, dark, light)
    # Lit from one side, the lumps get a bright and a dark flank.
    relief = np.asarray(cv2.GaussianBlur(rough, (0, 0), 0.004 * side))
    shift = max(1, side // 90)
    image *= np.clip(1 + 1.1 * (relief - np.roll(relief, (shift, shift), (0, 1))), 0.4, 1.6)[..., None]
    moss = smoothstep(0.45, 1.0, clouds(rng, side, (3, 3), 3))
    image = _between(moss * rng.uniform(0, 0.8), image, _tint(rng, (0.25, 0.38, 0.14)))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.001, 0.006) * side), np.float32)


def _bokeh(rng: np.random.Generator, side: int) -> Array:
    dark, light = _tint(rng, (0.07, 0.16, 0.08)), _tint(rng, (0.28, 0.44, 0.20))
    image = _between(0.5 + 0.5 * clouds(rng, side, (3, 3), 2), dark, light)
    glow = np.zeros_like(image)
    for _ in range(int(rng.integers(8, 26))):
        colour = rng.choice(
            [[0.75, 0.85, 0.45], [0.9, 0.9, 0.75], [0.55, 0.75, 0.35], [0.9, 0.7, 0.6], [0.65, 0.7, 0.9]]
        )
        centre = (rng.uniform(0, 1, 2) * side).astype(int).tolist()
        spot = np.zeros((side, side), np.float32)
        radius = int(rng.uniform(0.03, 0.10) * side)
        cv2.circle(spot, centre, radius, 1.0, -1)
        cv2.circle(spot, centre, radius, 1.35, max(1, radius // 8))
        glow += spot[..., None] * (colour * rng.uniform(0.08, 0.4)).astype(np.float32)
    image = 1 - (1 - image) * (1 - np.clip(np.asarray(cv2.GaussianBlur(glow, (0, 0), 0.008 * side)), 0, 1))
    return np.asarray(image, np.float32)


def _foliage(rng: np.random.Generator, side: int) -> Array:
    dark = _tint(rng, (0.07, 0.17, 0.07))
    image = _between(0.5 + 0.5 * clouds(rng, side, (4, 4), 3), 0.5 * dark, 1.3 * dark)
    angle = rng.uniform(0, 2 * math.pi)
    canvas = Canvas(image, (math.cos(angle), math.sin(angle)))
    light = _tint(rng, (0.30, 0.48, 0.20))
    for depth in np.linspace(0, 1, int(rng.integers(26, 44))):
        paint_leaf(
            canvas,
            rng,
            (rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.1)),
            (rng.uniform(0, 2 * math.pi), rng.uniform(0.16, 0.34)),
            light * (0.35 + 0.55 * depth + rng.uniform(-0.1, 0.1)),
        )
        if rng.random() < 0.12:
            canvas.blur(0.005)
    canvas.blur(rng.uniform(0.003, 0.012))
    return canvas.image


def _wall(rng: np.random.Generator, side: int) -> Array:
    palette = [(0.62, 0.58, 0.52), (0.50, 0.52, 0.56), (0.74, 0.70, 0.62), (0.55, 0.40, 0.33), (0.32, 0.33, 0.36)]
    colour = _tint(rng, palette[rng.integers(len(palette))])
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    angle = rng.uniform(0, 2 * math.pi)
    light = 1 + 0.22 * (x * math.cos(angle) + y * math.sin(angle)) + 0.14 * clouds(rng, side, (3, 3), 5, 0.7)
    return np.asarray(colour * light[..., None], np.float32)


def paint_leaf(
    canvas: Canvas, rng: np.random.Generator, origin: Point, reach: tuple[float, float], colour: Array
) -> None:
    """Paints an oval pointed leaf with a light midrib; `reach` is its direction in radians and its length."""
    angle, length = reach
    leaf = Petal(
        outline(rng.uniform(0.16, 0.27), 0.55, 0.8, roughness=0.04, seed=int(rng.integers(2**32))),
        gradient((0, 0.75 * colour), (0.5, colour), (1, 1.1 * colour)),
        bend=rng.uniform(-0.2, 0.2),
        veins=0.06,
        vein_count=rng.uniform(3, 5),
        crease=-0.22,
        roundness=0.45,
        shadow=0,
    )
    paint_petal(canvas, leaf, origin, (length * math.cos(angle), length * math.sin(angle)), flower=False)

"""A small painter for synthetic flowers: shaded petals, stems and discs on a canvas.

Coordinates run over the picture as (x, y) in [0, 1], y downwards. Colours are RGB in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float32]
Point: TypeAlias = tuple[float, float]

STEPS = 256  # resolution of the tables along a petal


class Canvas:
    """A picture being painted, and how much of each pixel belongs to a flower.

    Attributes:
        image: float32 [side, side, 3].
        flower: float32 [side, side], 0 to 1.
        light: Unit vector towards the light within the picture plane.
    """

    def __init__(self, image: Array, light: Point) -> None:
        self.image = image
        self.side = image.shape[0]
        self.flower: Array = np.zeros(image.shape[:2], np.float32)
        self.light = light

    def blur(self, radius: float) -> None:
        """Puts everything painted so far out of focus; `radius` is a part of the picture's side."""
        self.image = np.asarray(cv2.GaussianBlur(self.image, (0, 0), radius * self.side), np.float32)


def smoothstep(low: float, high: float, x: ArrayLike) -> Array:
    """Rises from 0 at `low` to 1 at `high` without a kink."""
    t = np.clip((np.asarray(x, np.float32) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def outline(width: float, base: float, tip: float, *, roughness: float = 0.0, seed: int = 0) -> Array:
    """Half-width of a petal along its axis, `width` * u**base * (1 - u)**tip scaled to its maximum.

    Small exponents give blunt ends, large ones pointed ends.

    Returns:
        [2, STEPS]: the left and the right side, in petal lengths.
    """
    u = np.linspace(0, 1, STEPS)
    half = u**base * (1 - u) ** tip
    half *= width / half.max()
    sides = np.stack([half, half])
    if roughness:
        rng = np.random.default_rng(seed)
        for side in sides:
            waves = rng.integers(2, 7, 3)
            phases = rng.uniform(0, 2 * math.pi, 3)
            side *= 1 + roughness * sum(np.sin(2 * math.pi * n * u + p) / n for n, p in zip(waves, phases, strict=True))
    return sides.astype(np.float32)


def mix(first: ArrayLike, second: ArrayLike, amount: float) -> Array:
    """Returns the colour between two."""
    return np.asarray(np.asarray(first) * (1 - amount) + np.asarray(second) * amount, np.float32)


def gradient(*stops: tuple[float, ArrayLike]) -> Array:
    """Colour along a petal, [STEPS, 3], through (position, colour) stops."""
    u = np.linspace(0, 1, STEPS)
    positions = [position for position, _ in stops]
    colours = np.array([colour for _, colour in stops])
    columns = [np.interp(u, positions, colours[:, channel]) for channel in range(3)]
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Petal:
    """How one petal or leaf looks, whatever its place.

    Attributes:
        outline: See `outline`.
        colours: See `gradient`.
        bend: How far its tip leans sideways, in petal lengths.
        notch: Depth of the dent in the tip, in petal lengths.
        frill: Waviness of the tip, in petal lengths.
        veins: Strength of the lengthwise lines.
        vein_count: Number of lengthwise lines on each half.
        crease: Strength of the line along the middle; negative for a light one.
        roundness: How strongly the light models it.
        rim: Brightening of the edge.
        shadow: Darkening of the flower just around it.
        phase: Shifts frill and veins, so that petals differ.
        stain: Colour of veins that show as lines, as on a pansy's face: [STEPS, 4], RGB and strength.
    """

    outline: Array
    colours: Array
    bend: float = 0.0
    notch: float = 0.0
    frill: float = 0.0
    veins: float = 0.05
    vein_count: float = 4.0
    crease: float = 0.1
    roundness: float = 0.25
    rim: float = 0.0
    shadow: float = 0.3
    phase: float = 0.0
    stain: Array | None = None


def paint_petal(
    canvas: Canvas, petal: Petal, origin: Point, along: Point, across: Point | None = None, *, flower: bool = True
) -> None:
    """Paints a petal.

    Args:
        canvas: What to paint on.
        petal: The petal's look.
        origin: Where it is attached.
        along: Vector from there to the tip.
        across: Vector that the outline's widths are measured along; None for a petal seen face on, that is `along`
            turned by 90 degrees. A shorter one foreshortens it.
        flower: Whether it belongs to the flower (a leaf does not).
    """
    side = canvas.side
    if across is None:
        across = (-along[1], along[0])
    widest = float(petal.outline.max())
    reach = widest + abs(petal.bend) + petal.frill
    margin = 6.0 / side
    corners = [
        (origin[0] + u * along[0] + v * across[0], origin[1] + u * along[1] + v * across[1])
        for u in (0.0, 1.0 + petal.frill)
        for v in (-reach, reach)
    ]
    left = max(0, math.floor((min(x for x, _ in corners) - margin) * side))
    right = min(side, math.ceil((max(x for x, _ in corners) + margin) * side))
    top = max(0, math.floor((min(y for _, y in corners) - margin) * side))
    bottom = min(side, math.ceil((max(y for _, y in corners) + margin) * side))
    determinant = along[0] * across[1] - along[1] * across[0]
    if left >= right or top >= bottom or abs(determinant) < 1e-9:
        return

    # (u, v): position along the axis, and across it, both in petal lengths.
    x = ((np.arange(left, right, dtype=np.float32) + 0.5) / side - origin[0])[None, :]
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / side - origin[1])[:, None]
    u = x * (across[1] / determinant) - y * (across[0] / determinant)
    v = y * (along[0] / determinant) - x * (along[1] / determinant)
    if petal.bend:
        v -= petal.bend * u * u
    if petal.notch:
        u /= 1 - petal.notch * np.exp(-((v / (0.35 * widest)) ** 2))
    if petal.frill:
        u *= 1 + petal.frill * (np.cos(v * (9 / widest) + petal.phase) + np.cos(v * (5 / widest) - 2 * petal.phase)) / 2

    place = (np.clip(u, 0, 1) * (STEPS - 1)).astype(np.intp)
    half = np.where(v > 0, petal.outline[1][place], petal.outline[0][place])
    slope = np.gradient(petal.outline.mean(0)) * (STEPS - 1)
    steepness = (1 / np.sqrt(1 + slope**2)).astype(np.float32)[place]
    # Signed distance to the edge in pixels, negative inside.
    scale = side * math.sqrt(abs(determinant))
    distance = np.maximum((np.abs(v) - half) * steepness, np.maximum(-u, u - 1)) * scale
    cover = np.clip(0.5 - distance, 0, 1)

    q = np.clip(v / (half + 1e-4), -1, 1)
    length, breadth = math.hypot(*along), math.hypot(*across)
    lit_along = (along[0] * canvas.light[0] + along[1] * canvas.light[1]) / length
    lit_across = (across[0] * canvas.light[0] + across[1] * canvas.light[1]) / breadth
    shade = 1 + petal.roundness * (lit_across * q * 0.6 + lit_along * (u - 0.45))
    if petal.veins:
        shade += petal.veins * np.cos(q * (petal.vein_count * math.pi) + petal.phase)
    if petal.crease:
        shade -= petal.crease * np.exp(-((v / (0.12 * widest)) ** 2))
    if petal.rim:
        shade += petal.rim * np.clip(1 + distance / (0.12 * scale * widest), 0, 1)
    colour = petal.colours[place]
    if petal.stain is not None:
        stain = petal.stain[place]
        strength = stain[..., 3:] * np.clip(np.cos(q * (petal.vein_count * 2 * math.pi)), 0, 1)[..., None]
        colour = colour + strength * (stain[..., :3] - colour)
    colour = colour * shade[..., None]

    region = canvas.image[top:bottom, left:right]
    covered = canvas.flower[top:bottom, left:right]
    if petal.shadow:
        # Only on what is already flower: against the background it would look like a drawn outline.
        halo = np.clip(1 - distance / (0.025 * side), 0, 1)
        region *= (1 - petal.shadow * halo * halo * covered)[..., None]
    region += cover[..., None] * (colour - region)
    if flower:
        np.maximum(covered, cover, out=covered)
    else:
        covered *= 1 - cover


def paint_disc(
    canvas: Canvas,
    centre: Point,
    axes: tuple[Point, Point],
    colours: Array,
    *,
    roundness: float = 0.3,
    shadow: float = 0.4,
) -> None:
    """Paints a domed disc, such as the middle of a daisy.

    Args:
        canvas: What to paint on.
        centre: Its centre.
        axes: Two vectors from the centre to the edge; of different length for a disc seen at a slant.
        colours: From the centre to the edge.
        roundness: How strongly the light models it.
        shadow: Darkening of the flower just around it.
    """
    side = canvas.side
    (ax, ay), (bx, by) = axes
    reach = 1.6 * max(math.hypot(ax, ay), math.hypot(bx, by))
    left, right = (
        max(0, math.floor((centre[0] - reach) * side)),
        min(side, math.ceil((centre[0] + reach) * side)),
    )
    top, bottom = (
        max(0, math.floor((centre[1] - reach) * side)),
        min(side, math.ceil((centre[1] + reach) * side)),
    )
    determinant = ax * by - ay * bx
    if left >= right or top >= bottom or abs(determinant) < 1e-9:
        return
    x = ((np.arange(left, right, dtype=np.float32) + 0.5) / side - centre[0])[None, :]
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / side - centre[1])[:, None]
    a = (x * by - y * bx) / determinant
    b = (y * ax - x * ay) / determinant
    r = np.sqrt(a * a + b * b)
    distance = (r - 1) * (side * math.sqrt(abs(determinant)))
    cover = np.clip(0.5 - distance, 0, 1)
    scale = max(math.hypot(ax, ay), math.hypot(bx, by))
    shade = 1 + roundness * (x * canvas.light[0] + y * canvas.light[1]) / scale
    colour = colours[(np.clip(r, 0, 1) * (STEPS - 1)).astype(np.intp)] * shade[..., None]
    region = canvas.image[top:bottom, left:right]
    covered = canvas.flower[top:bottom, left:right]
    region *= (1 - shadow * np.clip(1 - (r - 1) / 0.45, 0, 1) * covered)[..., None]
    region += cover[..., None] * (colour - region)
    np.maximum(covered, cover, out=covered)


def paint_dots(
    canvas: Canvas, points: ArrayLike, radius: ArrayLike, colours: ArrayLike, *, flower: bool = True
) -> None:
    """Paints small round dots: seeds, stamens, speckles.

    Args:
        canvas: What to paint on.
        points: [count, 2].
        radius: One, or [count].
        colours: One colour, or [count, 3].
        flower: Whether they belong to the flower.
    """
    places = np.asarray(points, np.float64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), len(places))
    tints = np.broadcast_to(np.asarray(colours, np.float64), (len(places), 3))
    fraction = 16  # OpenCV's fixed-point coordinates, 4 bits
    centres = np.rint((places * canvas.side - 0.5) * fraction).astype(int)
    sizes = np.maximum(np.rint(radii * canvas.side * fraction), fraction // 2).astype(int)
    for centre, size, tint in zip(centres.tolist(), sizes.tolist(), tints.tolist(), strict=True):
        cv2.circle(canvas.image, centre, size, tint, -1, cv2.LINE_8, 4)
        if flower:
            cv2.circle(canvas.flower, centre, size, 1.0, -1, cv2.LINE_8, 4)


def curve(start: Point, control: Point, end: Point, count: int = 24) -> NDArray[np.float64]:
    """Points [count, 2] of the quadratic Bézier curve from `start` to `end`, pulled towards `control`."""
    t = np.linspace(0, 1, count)[:, None]
    return np.asarray((1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(control) + t**2 * np.array(end))


def paint_strand(
    canvas: Canvas, points: NDArray[np.float64], width: float, colour: ArrayLike, *, flower: bool = False
) -> None:
    """Paints a rounded strand along points: a stem, or a filament of a stamen. It lies over what was there before."""
    side = canvas.side
    shift = 16
    tints = np.asarray(colour, np.float32)

    def line(target: Array, offset: float, breadth: float, value: Sequence[float]) -> None:
        moved = points + offset * np.array(canvas.light)
        pixels = np.rint((moved * side - 0.5) * shift).astype(np.int32)
        cv2.polylines(target, [pixels], False, value, max(1, round(breadth * side)), cv2.LINE_8, 4)

    line(canvas.image, 0.0, width, (0.62 * tints).tolist())
    line(canvas.image, 0.12 * width, 0.7 * width, tints.tolist())
    line(canvas.image, 0.22 * width, 0.25 * width, np.minimum(1, 1.22 * tints).tolist())
    line(canvas.flower, 0.0, width, [1.0 if flower else 0.0])

"""What the blooms are made of: colours, poses, rings of petals, spirals of seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggtransfer.data.flowers.painting import Array, Canvas, Petal, Point, paint_petal

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "white": (0.94, 0.93, 0.89),
    "cream": (0.96, 0.90, 0.68),
    "yellow": (0.96, 0.82, 0.16),
    "orange": (0.96, 0.55, 0.12),
    "coral": (0.95, 0.48, 0.38),
    "red": (0.83, 0.12, 0.10),
    "crimson": (0.60, 0.07, 0.15),
    "pink": (0.95, 0.62, 0.72),
    "magenta": (0.80, 0.22, 0.52),
    "lilac": (0.72, 0.58, 0.86),
    "purple": (0.45, 0.20, 0.60),
    "blue": (0.36, 0.40, 0.82),
}
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True)
class Pose:
    """Where a bloom sits and how it is turned.

    Attributes:
        centre: Its centre in the picture.
        radius: Length of its outermost petals, as part of the picture's side.
        turn: Rotation in its own plane, in radians.
        tilt: Cosine of the angle at which it is seen: 1 for face on.
        axis: Direction in the picture along which the tilt shortens it, in radians.
    """

    centre: Point
    radius: float
    turn: float = 0.0
    tilt: float = 1.0
    axis: float = math.pi / 2

    def vector(self, angle: float, length: float) -> Point:
        """Picture vector of `length` radii at `angle` in the bloom's plane."""
        x, y = math.cos(angle + self.turn), math.sin(angle + self.turn)
        nx, ny = math.cos(self.axis), math.sin(self.axis)
        shortened = (1 - self.tilt) * (x * nx + y * ny)
        return (length * self.radius * (x - shortened * nx), length * self.radius * (y - shortened * ny))

    def at(self, angle: float, distance: float) -> Point:
        """The picture point at `distance` radii from the centre."""
        x, y = self.vector(angle, distance)
        return (self.centre[0] + x, self.centre[1] + y)


def petal_colour(rng: np.random.Generator, names: str) -> Array:
    """Returns one of the colours named in `names`, slightly varied."""
    choices = names.split()
    colour = np.array(COLOURS[choices[rng.integers(len(choices))]])
    return np.asarray(np.clip(colour * rng.uniform(0.92, 1.06) + rng.normal(0, 0.025, 3), 0.02, 1), np.float32)


def ring(
    canvas: Canvas,
    rng: np.random.Generator,
    pose: Pose,
    make: Callable[[], Petal],
    count: int,
    *,
    length: float = 1.0,
    start: float = 0.0,
    jitter: float = 0.06,
    base: float = 0.0,
) -> None:
    """Paints `count` petals around the centre, in an order in which neighbours overlap irregularly."""
    for k in rng.permutation(count):
        angle = start + 2 * math.pi * (k + rng.normal(0, jitter)) / count
        reach = length * rng.uniform(1 - jitter, 1 + jitter)
        paint_petal(
            canvas, make(), pose.at(angle, base), pose.vector(angle, reach), pose.vector(angle + math.pi / 2, reach)
        )


def spiral(pose: Pose, count: int, radius: float) -> NDArray[np.float64]:
    """Points of a sunflower spiral (Vogel 1979) that fill a disc of `radius` bloom radii."""
    return np.array([pose.at(k * GOLDEN_ANGLE, radius * math.sqrt((k + 0.5) / count)) for k in range(count)])

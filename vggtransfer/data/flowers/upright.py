"""The two species that are seen from the side: a cup on a stem, and a stem hung with bells."""

from __future__ import annotations

import math

import numpy as np

from vggtransfer.data.flowers.painting import (
    Array,
    Canvas,
    Petal,
    Point,
    gradient,
    mix,
    outline,
    paint_petal,
    paint_strand,
)
from vggtransfer.data.flowers.parts import Pose, petal_colour


def tulip(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """A cup of six upright pointed petals, seen from the side."""
    colour = petal_colour(dye, "red yellow pink white orange purple magenta crimson cream")
    edge = mix(colour, petal_colour(dye, "yellow white cream coral"), dye.choice([0.0, 0.25, 0.75]))
    base = mix(colour, [0.75, 0.8, 0.45], 0.45)
    colours = gradient((0, 0.8 * base), (0.25, 0.88 * colour), (0.75, colour), (1, edge))
    height = 1.75
    opening = rng.uniform(0.6, 1.7)
    foot = pose.at(math.pi / 2, 0.85)
    up = -math.pi / 2
    pieces = [
        (-0.36, 1.0, 0.74),
        (0.36, 1.0, 0.74),
        (0.0, 1.05, 0.66),
        (-0.27, 0.97, 0.92),
        (0.27, 0.97, 0.92),
        (0.0, 0.86, 1.04),
    ]
    for place, reach, brightness in pieces:
        angle = up + place * opening * rng.uniform(0.9, 1.1) + rng.normal(0, 0.03)
        petal = Petal(
            outline(rng.uniform(0.30, 0.35), 0.48, 0.55, roughness=0.02, seed=int(rng.integers(2**32))),
            colours * brightness * rng.uniform(0.96, 1.03),
            bend=-place * 0.55 / opening + rng.normal(0, 0.02),
            veins=0.05,
            vein_count=rng.uniform(4, 6),
            crease=0.08,
            roundness=0.55,
            rim=0.10,
            shadow=0.45,
        )
        along = pose.vector(angle, height * reach)
        paint_petal(canvas, petal, foot, along)


def bluebell(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """An arching stem hung with narrow bells whose tips curl outwards."""
    colour = petal_colour(dye, "blue blue purple lilac lilac pink white white magenta")
    lean = rng.choice([-1.0, 1.0])
    spread = rng.uniform(0.45, 0.75)
    # The stem rises, then bows over to one side.
    t = np.linspace(0, 1, 30)
    x = lean * (-0.35 + spread * 1.5 * t**2.2)
    y = 1.05 - 2.0 * t + 0.45 * t**5
    local = np.stack([x, y], 1)
    path = np.array([pose.centre]) + pose.radius * local
    green = mix([0.30, 0.42, 0.18], 0.7 * colour, 0.4)
    ground = [(path[0][0], 1.1)] if path[0][1] < 1.1 else []
    paint_strand(canvas, np.array([*ground, *path]), 0.065 * pose.radius, green)
    count = int(rng.integers(5, 8))
    for k, where in enumerate(np.linspace(0.28, 1.0, count)):
        index = round(where * 29)
        anchor = path[index]
        young = where**1.5
        size = pose.radius * (0.80 - 0.30 * young) * rng.uniform(0.92, 1.08)
        sideways = (lean if (k % 2 or where > 0.85) else -lean) * rng.uniform(0.35, 0.75)
        angle = math.pi / 2 - sideways * (1 - 0.25 * young)
        hook = (anchor[0] + 0.24 * size * math.cos(angle) * 1.4, anchor[1] - 0.02 * size)
        paint_strand(canvas, np.array([anchor, hook]), 0.035 * pose.radius, green)
        _bell(canvas, hook, angle, size, colour * rng.uniform(0.9, 1.06))


def _bell(canvas: Canvas, top: Point, angle: float, size: float, colour: Array) -> None:
    direction = (math.cos(angle), math.sin(angle))
    aside = (-direction[1], direction[0])
    light = np.minimum(1, mix(colour, [1, 1, 1], 0.22))
    lobes = gradient((0, 0.8 * colour), (1, light))

    def lobe(offset: float, bend: float, brightness: float) -> None:
        start = (
            top[0] + size * (0.62 * direction[0] + offset * aside[0]),
            top[1] + size * (0.62 * direction[1] + offset * aside[1]),
        )
        reach = 0.50 * size
        lean = 0.55 * offset / 0.2
        along = (
            reach * (direction[0] + lean * aside[0]),
            reach * (direction[1] + lean * aside[1]),
        )
        paint_petal(
            canvas,
            Petal(outline(0.30, 0.4, 0.6), lobes * brightness, bend=bend, crease=0.15, roundness=0.4, shadow=0.3),
            start,
            along,
        )

    lobe(0.0, 0.0, 0.62)
    lobe(0.17, 0.55, 0.9)
    lobe(-0.17, -0.55, 0.9)
    body = Petal(
        outline(0.30, 0.45, 0.06),
        gradient((0, 0.68 * colour), (0.3, 0.9 * colour), (1, colour)),
        veins=0.10,
        vein_count=2,
        crease=0.10,
        roundness=0.75,
        shadow=0.4,
    )
    paint_petal(canvas, body, top, (0.84 * size * direction[0], 0.84 * size * direction[1]))
    lobe(0.05, 0.10, 1.02)

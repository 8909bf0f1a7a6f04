"""The species: eight that differ in the number, shape and arrangement of their petals and in their centres.

Their colours overlap on purpose: white, yellow, pink and purple flowers are found among nearly all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from vggtransfer.data.flowers.painting import (
    STEPS,
    Array,
    Canvas,
    Petal,
    gradient,
    mix,
    outline,
    paint_disc,
    paint_dots,
    paint_petal,
    paint_strand,
    smoothstep,
)
from vggtransfer.data.flowers.parts import GOLDEN_ANGLE, Pose, petal_colour, ring, spiral
from vggtransfer.data.flowers.upright import bluebell, tulip


def daisy(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """Many narrow blunt rays around a small yellow disc."""
    colour = petal_colour(dye, "white white cream yellow pink lilac magenta coral")
    count = int(rng.integers(13, 22))
    width = rng.uniform(0.75, 1.0) * 2.6 / count
    colours = gradient((0, 0.72 * colour), (0.35, 0.95 * colour), (1, mix(colour, [1, 1, 1], 0.15)))

    def ray() -> Petal:
        return Petal(
            outline(width, 0.45, 0.16, roughness=0.05, seed=int(rng.integers(2**32))),
            colours * rng.uniform(0.93, 1.05),
            bend=rng.normal(0, 0.05),
            notch=rng.uniform(0, 0.05),
            veins=0.06,
            vein_count=2,
            crease=0.05,
            roundness=0.3,
        )

    if rng.random() < 0.5:
        ring(canvas, rng, pose, ray, count, length=0.98, start=math.pi / count)
    ring(canvas, rng, pose, ray, count)
    disc = rng.uniform(0.20, 0.28)
    gold = petal_colour(dye, "yellow yellow orange")
    paint_disc(
        canvas,
        pose.centre,
        (pose.vector(0, disc), pose.vector(math.pi / 2, disc)),
        gradient((0, 0.80 * gold), (0.5, gold), (1, 0.62 * gold)),
        roundness=0.35,
    )
    dots = spiral(pose, 70, 0.94 * disc)
    paint_dots(canvas, dots[::2], 0.10 * disc * pose.radius, np.minimum(1, gold * 1.16))
    paint_dots(canvas, dots[1::2], 0.07 * disc * pose.radius, gold * 0.72)


def sunflower(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """Two layers of pointed rays around a broad disc of seeds."""
    colour = petal_colour(dye, "yellow yellow orange cream crimson coral white")
    count = int(rng.integers(15, 22))
    base = mix(colour, petal_colour(dye, "orange crimson"), 0.45)
    colours = gradient((0, 0.55 * base), (0.45, 0.85 * mix(base, colour, 0.6)), (0.8, colour), (1, 0.95 * colour))
    disc = rng.uniform(0.42, 0.52)

    def ray() -> Petal:
        return Petal(
            outline(rng.uniform(0.17, 0.22), 0.6, 0.75, roughness=0.05, seed=int(rng.integers(2**32))),
            colours * rng.uniform(0.9, 1.06),
            bend=rng.normal(0, 0.1),
            veins=0.09,
            vein_count=3,
            crease=0.12,
            roundness=0.35,
            shadow=0.4,
        )

    ring(canvas, rng, pose, ray, count, length=0.72, start=math.pi / count, base=0.27)
    ring(canvas, rng, pose, ray, count, length=0.70, base=0.27, jitter=0.1)
    dark = rng.uniform([0.20, 0.11, 0.04], [0.36, 0.20, 0.08])
    paint_disc(
        canvas,
        pose.centre,
        (pose.vector(0, disc), pose.vector(math.pi / 2, disc)),
        gradient((0, mix(dark, [0.45, 0.5, 0.2], 0.5)), (0.35, 0.8 * dark), (0.7, 1.2 * dark), (1, 0.7 * dark)),
        roundness=0.4,
    )
    seeds = spiral(pose, 170, 0.97 * disc)
    rank = np.linspace(0, 1, len(seeds))[:, None]
    tips = mix(2.0 * dark, [0.80, 0.58, 0.16], 0.55)
    inner = np.where(rank < 0.18, [0.52, 0.56, 0.24], dark * 1.7)
    paint_dots(canvas, seeds, 0.045 * disc * pose.radius, np.where(rank > 0.62, tips, inner))


def poppy(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """Four to six broad crumpled petals, dark at the base, around a green pod with a ring of stamens."""
    colour = petal_colour(dye, "red red coral orange pink white yellow lilac")
    dark = np.array([0.12, 0.05, 0.12])
    blotch = rng.uniform(0.12, 0.30)
    colours = gradient(
        (0, dark), (blotch, dark), (blotch + 0.08, 0.8 * colour), (0.6, colour), (1, np.minimum(1, 1.06 * colour))
    )
    count = int(rng.integers(4, 7))

    def sheet() -> Petal:
        return Petal(
            outline(rng.uniform(0.58, 0.70), 0.55, 0.14, roughness=0.07, seed=int(rng.integers(2**32))),
            colours * rng.uniform(0.88, 1.06),
            frill=rng.uniform(0.04, 0.09),
            veins=0.09,
            vein_count=rng.uniform(5, 8),
            crease=0,
            roundness=0.45,
            rim=0.06,
            shadow=0.45,
            phase=rng.uniform(0, 6),
        )

    ring(canvas, rng, pose, sheet, count, jitter=0.1)
    angles = rng.uniform(0, 2 * math.pi, 60)
    distances = rng.uniform(0.15, 0.30, 60)
    tips = np.array([pose.at(a, d) for a, d in zip(angles, distances, strict=True)])
    filaments = mix(dark, petal_colour(dye, "yellow purple"), rng.uniform(0, 0.3))
    paint_dots(canvas, tips, 0.022 * pose.radius, filaments)
    paint_dots(canvas, tips[::3], 0.014 * pose.radius, mix(filaments, [1, 0.95, 0.7], 0.45))
    pod = np.array([0.55, 0.62, 0.34]) * rng.uniform(0.8, 1.1)
    paint_disc(
        canvas,
        pose.centre,
        (pose.vector(0, 0.13), pose.vector(math.pi / 2, 0.13)),
        gradient((0, 1.1 * pod), (0.8, pod), (1, 0.6 * pod)),
        shadow=0.6,
    )
    rays = [np.array([pose.at(a, 0.02), pose.at(a, 0.10)]) for a in np.arange(8) * math.pi / 4]
    for ray in rays:
        paint_strand(canvas, ray, 0.022 * pose.radius, 0.45 * pod, flower=True)


def rose(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """A spiral of round petals, smaller and darker towards a closed heart."""
    colour = petal_colour(dye, "red crimson pink white cream yellow coral magenta")
    heart = mix(0.72 * colour, petal_colour(dye, "crimson orange magenta coral"), 0.18)
    count = int(rng.integers(20, 27))
    start = rng.uniform(0, 2 * math.pi)
    for k in range(count):
        inner = k / (count - 1)
        shade = mix(colour, heart, 0.8 * inner) * rng.uniform(0.95, 1.04)
        angle = start + k * GOLDEN_ANGLE + rng.normal(0, 0.08)
        length = (1 - 0.86 * inner**0.8) * rng.uniform(0.95, 1.05)
        sheet = Petal(
            outline(
                (0.50 + 0.22 * inner) * rng.uniform(0.92, 1.08),
                0.62,
                0.36,
                roughness=0.03,
                seed=int(rng.integers(2**32)),
            ),
            gradient((0, 0.48 * shade), (0.45, 0.72 * shade), (0.8, 0.98 * shade), (1, np.minimum(1, 1.1 * shade))),
            bend=rng.normal(0, 0.08),
            frill=0.012,
            veins=0.02,
            crease=0,
            roundness=0.28,
            rim=0.16,
            shadow=0.42,
            phase=rng.uniform(0, 6),
        )
        # The heart's petals stand around the centre instead of starting in it.
        behind = pose.at(angle, -0.10 * inner)
        paint_petal(canvas, sheet, behind, pose.vector(angle, length), pose.vector(angle + math.pi / 2, length))


def pansy(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """Five unequal round petals with a dark-veined face and a yellow eye."""
    colour = petal_colour(dye, "purple purple yellow white blue orange lilac crimson")
    upper = petal_colour(dye, "purple blue lilac crimson white yellow") if dye.random() < 0.45 else 0.88 * colour
    dark = np.array([0.16, 0.04, 0.20])
    face = rng.uniform(0.30, 0.50)
    steps = np.linspace(0, 1, STEPS)
    stain = np.concatenate([np.tile(dark, (STEPS, 1)), (0.95 * (1 - smoothstep(face, face + 0.3, steps)))[:, None]], 1)

    def paint(angle: float, length: float, width: float, tint: Array, *, marked: bool) -> None:
        middle = mix(tint, dark, 0.75) if marked else 0.8 * tint
        colours = gradient(
            (0, dark if marked else 0.7 * tint),
            (face * 0.75, middle),
            (face + 0.12, tint),
            (1, np.minimum(1, 1.05 * tint)),
        )
        petal = Petal(
            outline(width, 0.55, 0.16, roughness=0.04, seed=int(rng.integers(2**32))),
            colours * rng.uniform(0.95, 1.04),
            bend=rng.normal(0, 0.03),
            notch=0.10 if marked and width > 0.6 else 0.03,
            frill=0.025,
            veins=0.03,
            vein_count=6,
            crease=0,
            roundness=0.32,
            rim=0.08,
            shadow=0.4,
            phase=rng.uniform(0, 6),
            stain=np.asarray(stain, np.float32) if marked else None,
        )
        angle += rng.normal(0, 0.04)
        paint_petal(canvas, petal, pose.centre, pose.vector(angle, length), pose.vector(angle + math.pi / 2, length))

    up = -math.pi / 2
    paint(up - 0.45, 1.0, 0.56, upper, marked=False)
    paint(up + 0.45, 1.0, 0.56, 0.94 * upper, marked=False)
    paint(up - 1.50, 0.90, 0.52, colour, marked=True)
    paint(up + 1.50, 0.90, 0.52, colour, marked=True)
    paint(up + math.pi, 0.92, 0.68, colour, marked=True)
    eye = petal_colour(dye, "yellow orange")
    for angle, reach in ((math.pi / 2, 0.17), (math.pi / 2 - 0.9, 0.10), (math.pi / 2 + 0.9, 0.10)):
        drop = Petal(outline(0.42, 0.5, 0.25), gradient((0, eye), (1, 0.85 * eye)), veins=0, crease=0, shadow=0)
        paint_petal(canvas, drop, pose.centre, pose.vector(angle, reach), pose.vector(angle + math.pi / 2, reach))
    paint_dots(canvas, [pose.at(up + a, 0.05) for a in (-0.8, 0.8)], 0.03 * pose.radius, (0.95, 0.95, 0.88))


def lily(canvas: Canvas, rng: np.random.Generator, pose: Pose, dye: np.random.Generator) -> None:
    """A star of six long pointed petals, speckled, with six long stamens."""
    colour = petal_colour(dye, "orange white white pink yellow coral magenta crimson")
    stripe = mix(colour, petal_colour(dye, "white yellow pink"), 0.45)
    throat = mix(colour, [0.55, 0.68, 0.25], 0.7)
    edge = np.minimum(1, mix(colour, [1, 1, 1], 0.12))
    colours = gradient((0, 0.75 * throat), (0.22, mix(throat, colour, 0.6)), (0.5, colour), (1, edge))

    def tepal(width: float) -> Callable[[], Petal]:
        return lambda: Petal(
            outline(width * rng.uniform(0.93, 1.07), 0.62, 0.62, roughness=0.04, seed=int(rng.integers(2**32))),
            colours * rng.uniform(0.93, 1.04),
            bend=rng.normal(0, 0.07),
            veins=0.05,
            vein_count=3,
            crease=-0.18 if stripe.sum() > colour.sum() else 0.14,
            roundness=0.40,
            rim=0.05,
            shadow=0.45,
        )

    ring(canvas, rng, pose, tepal(0.20), 3, length=1.0, start=math.pi / 3, jitter=0.03)
    ring(canvas, rng, pose, tepal(0.27), 3, length=0.97, jitter=0.03)
    if rng.random() < 0.75:
        angles = np.repeat(np.arange(6) * math.pi / 3, 11) + rng.normal(0, 0.11, 66)
        distances = rng.uniform(0.16, 0.52, 66)
        spots = np.array([pose.at(a, d) for a, d in zip(angles, distances, strict=True)])
        paint_dots(canvas, spots, 0.013 * pose.radius, mix(0.45 * colour, [0.35, 0.05, 0.08], 0.6))
    sway = rng.normal(0, 0.12, 2)
    rust = np.array([0.50, 0.22, 0.07]) * rng.uniform(0.8, 1.3)
    for k in range(6):
        angle = k * math.pi / 3 + 0.5 + rng.normal(0, 0.12)
        tip = pose.at(angle, rng.uniform(0.36, 0.46))
        tip = (tip[0] + sway[0] * 0.3 * pose.radius, tip[1] + sway[1] * 0.3 * pose.radius)
        paint_strand(
            canvas,
            np.array([pose.centre, tip]),
            0.028 * pose.radius,
            mix(throat, [1, 1, 0.9], 0.4),
            flower=True,
        )
        anther = Petal(outline(0.24, 0.3, 0.3), gradient((0, rust), (1, 1.2 * rust)), veins=0, crease=0, shadow=0.3)
        bar = 0.15 * pose.radius
        turn = pose.turn + angle + math.pi / 2 + rng.normal(0, 0.25)
        start = (tip[0] - 0.5 * bar * math.cos(turn), tip[1] - 0.5 * bar * math.sin(turn))
        paint_petal(canvas, anther, start, (bar * math.cos(turn), bar * math.sin(turn)))


PAINTERS: Mapping[str, Callable[[Canvas, np.random.Generator, Pose, np.random.Generator], None]] = {
    "bluebell": bluebell,
    "daisy": daisy,
    "lily": lily,
    "pansy": pansy,
    "poppy": poppy,
    "rose": rose,
    "sunflower": sunflower,
    "tulip": tulip,
}

"""Style transfer by optimising the pixels of one picture: Gatys et al. 2016, from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from vggtransfer.data.resampling import Picture
from vggtransfer.errors import TrainingError
from vggtransfer.perceptual.colour_matching import luma, match_colours, match_luma, with_luma
from vggtransfer.perceptual.pictures import as_picture, as_tensor, resized, resized_style
from vggtransfer.perceptual.style_objective import StyleObjective, StyleTerms

ColourChoice = Literal["style", "content", "luminance"]
StartChoice = Literal["content", "noise"]
PixelOptimizerName = Literal["lbfgs", "adam"]

_ITERATIONS_AT_ONCE = 10
_OUTSIDE_WEIGHT = 100.0  # L-BFGS knows no bounds; pixels beyond black and white are pulled back


@dataclass(frozen=True)
class Scale:
    """One size of the pyramid: the long side in pixels, and how many iterations it gets."""

    long_side: int
    iterations: int


def pyramid(size: int, *, scales: int, iterations: int) -> tuple[Scale, ...]:
    """Returns sizes that double up to `size`, each with half of the iterations of the one before.

    Large structures are cheap to make where the picture is small, and out of the reach of the deepest layers where it
    is large (Gatys et al. 2017, "Controlling Perceptual Factors in Neural Style Transfer", section 6). Sizes below 128
    pixels are left out.
    """
    sizes = [size >> step for step in reversed(range(scales)) if step == 0 or size >> step >= 128]
    shares = [0.5**step for step in range(len(sizes))]
    return tuple(
        Scale(side, max(1, round(iterations * share / sum(shares)))) for side, share in zip(sizes, shares, strict=True)
    )


@dataclass(frozen=True)
class Step:
    """Where the optimisation stands.

    Attributes:
        scale: The size at work.
        iterations: How many were made since the last step that was told.
        terms: The objective now.
        picture: The picture now, uint8 RGB.
    """

    scale: Scale
    iterations: int
    terms: StyleTerms
    picture: Picture


def transfer_style(
    content: Picture,
    style: Picture,
    *,
    objective: StyleObjective,
    scales: tuple[Scale, ...],
    style_scale: float = 1.0,
    colours: ColourChoice = "style",
    start: StartChoice = "content",
    optimizer: PixelOptimizerName = "lbfgs",
    seed: int = 0,
    device: torch.device,
    after_step: Callable[[Step], None] | None = None,
) -> Picture:
    """Paints the content in the style.

    Args:
        content: uint8 RGB [height, width, 3].
        style: Likewise, of any size.
        objective: What is minimised.
        scales: Sizes of the long side to work at, one after the other.
        style_scale: Long side of the style picture, relative to that of the content: above 1 its pattern gets larger.
        colours: `"style"` takes the colours of the style. The other two keep those of the content (Gatys et al. 2016,
            "Preserving Color in Neural Artistic Style Transfer"): `"content"` gives them to the style picture first,
            by a linear map; `"luminance"` transfers light and shade only.
        start: `"content"` (with the colours that the result is to have) or `"noise"`.
        optimizer: `"lbfgs"`, or `"adam"`, which needs more iterations and less memory.
        seed: Of the noise.
        device: Where to compute.
        after_step: Called after every few iterations.

    Returns:
        uint8 RGB, with the long side of the last scale and the proportions of the content.

    Raises:
        TrainingError: The objective is no longer finite.
    """
    pixels: Tensor | None = None
    for scale in scales:
        original = as_tensor(resized(content, long_side=scale.long_side)).to(device)
        example = as_tensor(resized_style(style, content_side=scale.long_side, style_scale=style_scale)).to(device)
        target, example = _recoloured(original, example, colours)
        objective.set_style(example)
        if pixels is not None:
            larger = F.interpolate(pixels, size=original.shape[2:], mode="bicubic", align_corners=False)
            pixels = larger.clamp(0, 1)
        elif start == "content":
            pixels = match_colours(target, example) if colours == "style" else target
        else:
            noise = torch.rand(original.shape, generator=torch.Generator().manual_seed(seed))
            pixels = noise.to(device)
        # L-BFGS wants pixels that lie dense in memory.
        pixels = pixels.detach().contiguous().clone().requires_grad_()
        steps = _steps(pixels, objective, objective.content_of(target), scale.iterations, optimizer=optimizer)
        for count, terms in steps:
            if not math.isfinite(terms.total.item()):
                raise TrainingError(
                    "the loss of the style transfer is not finite; use --optimizer adam, or a smaller --style-weight"
                )
            shown = with_luma(original, luma(pixels.detach())) if colours == "luminance" else pixels
            picture = as_picture(shown)
            if after_step is not None:
                after_step(Step(scale, count, terms, picture))
    return picture


def _recoloured(content: Tensor, style: Tensor, colours: ColourChoice) -> tuple[Tensor, Tensor]:
    """Returns content and style as the objective is to see them."""
    match colours:
        case "style":
            return content, style
        case "content":
            return content, match_colours(style, content)
        case "luminance":
            grey = luma(content)
            return grey.expand(-1, 3, -1, -1), match_luma(luma(style), grey).expand(-1, 3, -1, -1)
        case _ as never:
            assert_never(never)


def _steps(
    pixels: Tensor,
    objective: StyleObjective,
    content: dict[str, Tensor],
    iterations: int,
    *,
    optimizer: PixelOptimizerName,
) -> Iterator[tuple[int, StyleTerms]]:
    """Changes the pixels in place; yields how many iterations were made, and the objective at the last of them."""
    terms: StyleTerms

    def evaluate() -> Tensor:
        nonlocal terms
        pixels.grad = None
        terms = objective.terms(pixels, content)
        outside = (pixels - pixels.detach().clamp(0, 1)).square().mean()
        loss = terms.total + _OUTSIDE_WEIGHT * outside
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    lbfgs = torch.optim.LBFGS([pixels], history_size=10)
    adam = torch.optim.Adam([pixels], lr=0.02)
    done = 0
    while done < iterations:
        count = min(_ITERATIONS_AT_ONCE, iterations - done)
        if optimizer == "lbfgs":
            lbfgs.param_groups[0]["max_iter"] = count
            lbfgs.step(evaluate)  # type: ignore[no-untyped-call]
        else:
            for _ in range(count):
                adam.step(evaluate)
        done += count
        yield count, StyleTerms(*(term.detach() for term in vars(terms).values()))

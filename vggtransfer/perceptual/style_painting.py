"""`stylize` without training: one picture by optimisation, or many through a trained network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vggtransfer.data.decode import decode_image
from vggtransfer.data.picture_files import list_pictures
from vggtransfer.data.resampling import Picture
from vggtransfer.encoder.precision import resolve_device
from vggtransfer.errors import BadImageError, DataError, OptionError
from vggtransfer.features.encoder_choice import load_encoder
from vggtransfer.perceptual.pictures import as_picture, as_tensor, resized, resized_style, write_picture
from vggtransfer.perceptual.style_network import load_style_network
from vggtransfer.perceptual.style_objective import StyleObjective, StyleWeights
from vggtransfer.perceptual.style_transfer import Step, pyramid, transfer_style
from vggtransfer.perceptual.stylize import StylizeResult
from vggtransfer.perceptual.trunk import build_trunk
from vggtransfer.printable import printable
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.training.run_directory import create_run_directory, write_environment, write_recipe

PREVIEW = "preview.png"
_SMALLEST_FOR_NETWORK = 16
# Content layers and style weight, chosen by eye with the weights in this package.
_FOR_PICTURES = ("relu4_2", 100.0)
_FOR_NETWORKS = ("relu3_2", 5.0)


def style_objective(recipe: Mapping[str, Any]) -> StyleObjective:
    """The objective that a recipe of `stylize` means, without a style yet."""
    default_layers, default_weight = _FOR_PICTURES if recipe["train"] is None else _FOR_NETWORKS
    content_layers = recipe["content_layers"] or default_layers
    style_weight = default_weight if recipe["style_weight"] is None else recipe["style_weight"]
    encoder = load_encoder(recipe["net"], recipe["weights"])
    trunk = build_trunk(encoder, weights="default", in_channels=3, pooling=recipe["pooling"])
    return StyleObjective(
        trunk,
        content_layers=[name.strip() for name in content_layers.split(",")],
        style_layers=[name.strip() for name in recipe["style_layers"].split(",")],
        weights=StyleWeights(recipe["content_weight"], style_weight, recipe["smoothness_weight"]),
    )


def paint(recipe: Mapping[str, Any]) -> StylizeResult:
    """Optimises one picture; writes it and, on the way, previews."""
    if recipe["content"].is_dir():
        raise OptionError(f"--content {recipe['content']}: is a folder; only --model paints many pictures")
    device = resolve_device(recipe["device"])
    content, style = decode_image(recipe["content"]), decode_image(recipe["style"])
    objective = style_objective(recipe)
    scales = pyramid(recipe["size"], scales=recipe["scales"], iterations=recipe["iterations"])
    side = scales[0].long_side
    objective.check_size(resized(content, long_side=side), option="content", path=recipe["content"])
    example = resized_style(style, content_side=side, style_scale=recipe["style_scale"])
    objective.check_size(example, option="style", path=recipe["style"])
    run = create_run_directory("stylize", recipe["out"])
    write_recipe("stylize", run, recipe, may_be_files=("weights",))
    write_environment(run, device=device, processes=1)
    written = time.monotonic()

    with ProgressBar("painting", steps=sum(scale.iterations for scale in scales), shown=True) as bar:

        def after_step(step: Step) -> None:
            nonlocal written
            terms = step.terms
            bar.advance(
                f"{step.scale.long_side} px  content {terms.content.item():.3f}  style {terms.style.item():.4f}",
                steps=step.iterations,
            )
            if recipe["preview_seconds"] and time.monotonic() - written > recipe["preview_seconds"]:
                write_picture(run / PREVIEW, step.picture)
                written = time.monotonic()

        picture = transfer_style(
            content,
            style,
            objective=objective,
            scales=scales,
            style_scale=recipe["style_scale"],
            colours=recipe["colours"],
            start=recipe["start"],
            optimizer=recipe["optimizer"],
            seed=recipe["seed"],
            device=device,
            after_step=after_step,
        )
    (run / PREVIEW).unlink(missing_ok=True)
    path = write_picture(run / f"{recipe['content'].stem}.png", picture)
    print(f"wrote {printable(path)}")
    return StylizeResult(run, (path,))


def paint_with_network(recipe: Mapping[str, Any]) -> StylizeResult:
    """Sends pictures through a trained network."""
    device = resolve_device(recipe["device"])
    network = load_style_network(recipe["model"]).to(device)
    files = list_pictures([recipe["content"]])
    root = recipe["content"] if recipe["content"].is_dir() else recipe["content"].parent
    run = create_run_directory("stylize", recipe["out"])
    write_recipe("stylize", run, recipe, may_be_files=("weights",))
    write_environment(run, device=device, processes=1)
    painted: list[Path] = []
    with torch.inference_mode(), ProgressBar("painting", steps=len(files), shown=len(files) > 1) as bar:
        for file in files:
            bar.advance()
            try:
                picture = _fitting(decode_image(file), file, size=recipe["size"])
            except BadImageError as error:
                if recipe["on_bad_image"] == "stop" or len(files) == 1:
                    raise
                print(f"warning: {printable(error)}")
                continue
            name = file.relative_to(root).as_posix()
            result = as_picture(network(as_tensor(picture).to(device)))
            painted.append(write_picture(run / (name if name.endswith(".png") else f"{name}.png"), result))
    if not painted:
        raise DataError(f"{recipe['content']}: none of its {len(files)} pictures could be painted")
    print(f"wrote {len(painted)} picture{'s' if len(painted) > 1 else ''} to {printable(run)}")
    return StylizeResult(run, tuple(painted))


def _fitting(picture: Picture, file: Path, *, size: int) -> Picture:
    """The picture, made smaller where its long side is above `size`.

    Raises:
        BadImageError: What is left is too small for the network.
    """
    if max(picture.shape[:2]) > size:
        picture = resized(picture, long_side=size)
    if min(picture.shape[:2]) < _SMALLEST_FOR_NETWORK:
        raise BadImageError(f"{file}: {picture.shape[1]}x{picture.shape[0]} pixels are too few, 16 are needed")
    return picture

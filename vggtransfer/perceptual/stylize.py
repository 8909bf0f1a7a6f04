"""`vggtransfer stylize`: a picture painted in the style of another."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.training.resuming import resumed_recipe
from vggtransfer.training.run_paths import check_out

MAY_CHANGE = ("train", "style", "epochs", "lr", "precision", "device", "workers", "checkpoint_minutes")


@dataclass(frozen=True)
class StylizeResult:
    """What `stylize` wrote.

    Attributes:
        run: The run directory.
        pictures: The painted pictures; of a training run, its preview.
        model: The trained network, or None.
    """

    run: Path
    pictures: tuple[Path, ...]
    model: Path | None = None


def stylize(
    content: Path | None = None,
    *,
    style: Path | None = None,
    train: Path | None = None,
    model: Path | None = None,
    size: int = 512,
    style_scale: float = 1.0,
    colours: Literal["style", "content", "luminance"] = "style",
    content_weight: float = 1.0,
    style_weight: float | None = None,
    smoothness_weight: float = 3.0,
    content_layers: str | None = None,
    style_layers: str = "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1",
    net: ArchitectureName = "vgg16_bn_x0_25",
    weights: str = "default",
    pooling: Literal["max", "average"] = "max",
    iterations: int = 300,
    scales: int = 3,
    start: Literal["content", "noise"] = "content",
    optimizer: Literal["lbfgs", "adam"] = "lbfgs",
    preview_seconds: float = 10.0,
    epochs: int = 2,
    batch_size: int = 4,
    lr: float = 1e-3,
    train_size: int = 256,
    width: int = 32,
    val_fraction: float = 0.02,
    on_bad_image: Literal["skip", "stop"] = "skip",
    precision: Precision = "auto",
    workers: int | None = None,
    checkpoint_minutes: float = 10.0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    seed: int = 0,
    out: Path | None = None,
    resume: Path | None = None,
) -> StylizeResult:
    """Paints a picture in the style of another, by optimising its pixels or with a network trained for one style.

    `--content PICTURE --style PICTURE` optimises (Gatys et al. 2016), from small to large, in a minute or so. `--train
    FOLDER --style PICTURE` trains a network on photographs (Johnson et al. 2016); `--model RUN --content PICTURES` then
    paints in a single pass.

    Args:
        content: The picture to paint; with `model` also a folder of pictures.
        style: The picture whose style it gets.
        train: Folder of photographs (and folders below it) to train a network on.
        model: Run directory of a training run, or its `model.safetensors`.
        size: Long side of the painted picture in pixels. With `model`, smaller pictures keep their size.
        style_scale: Long side of the style picture, relative to that of the content: above 1 its pattern gets larger.
        colours: `style` takes the colours of the style; `content` keeps those of the content by giving them to the
            style picture first; `luminance` keeps them by painting in light and shade only (Gatys et al. 2016,
            "Preserving Color in Neural Artistic Style Transfer"). A network learns the colours of the style.
        content_weight: How much the content counts; errors are relative, so that weights mean the same in any network.
        style_weight: How much the style counts; default: 100 for a picture, 5 to train a network, which otherwise finds
            it easiest to paint the same pattern over everything.
        smoothness_weight: How much differences between neighbouring pixels count.
        content_layers: Layers whose maps are kept, a comma list; earlier ones keep more detail. Default: `relu4_2`,
            to train a network `relu3_2`.
        style_layers: Layers whose Gram matrices are taken from the style, a comma list.
        net: Network to look through. The small one comes with the package; `vgg16` and `vgg19` are downloaded.
        weights: Its weights: `default`, `torchvision`, `timm`, `embedded`, or a file or run directory.
        pooling: `max`, as the networks were trained, or `average` as Gatys et al. prefer.
        iterations: Iterations over all sizes, most of them at the smallest.
        scales: Sizes worked at, each twice the one before; none is below 128 pixels.
        start: Paint over the `content`, or out of `noise`.
        optimizer: `lbfgs`, or `adam`, which needs more iterations.
        preview_seconds: Seconds between rewritings of `preview.png`; 0 for none.
        epochs: Passes over the photographs.
        batch_size: Photographs per step, over all processes together.
        lr: Peak learning rate of the network, half a cosine down to 0.
        train_size: Side of the squares it is trained on, in pixels; the style picture's long side is `style_scale`
            times that.
        width: Channels of its first layer; 32 as published, 16 is about three times as fast.
        val_fraction: Part of the photographs that is not trained on; the best network is the one that does best there.
        on_bad_image: `skip` lists unreadable photographs in the run directory; `stop` ends with the first one.
        precision: Of the training: `auto` uses bfloat16 where the hardware is good at it. Pixels are always optimised
            in float32.
        workers: Processes that load photographs; default: chosen for the machine.
        checkpoint_minutes: Minutes between checkpoints within an epoch.
        device: `auto` takes a GPU if there is one.
        seed: Seed of everything random.
        out: Folder to write; default: `runs/stylize/N` with the next free N.
        resume: Training run to continue, exactly where its checkpoint stands, with the recipe that is there. Only
            train and style (the same pictures, moved), epochs, lr, precision, device, workers and checkpoint_minutes
            may be given anew; from Python, an argument that equals its default counts as not given.

    Returns:
        The folder and the files.

    Raises:
        VGGTransferError: An option or a file cannot be used; says which and what to do.
        TrainingInterrupted: Ctrl-C or SIGTERM while training; the state has been saved.
    """
    given = {name: value for name, value in locals().items() if name != "resume"}
    if resume is not None:
        defaults = {name: parameter.default for name, parameter in inspect.signature(stylize).parameters.items()}
        return resume_stylize(Path(resume), {name: value for name, value in given.items() if value != defaults[name]})
    recipe = checked_values(stylize, given)
    _check(recipe)
    check_out(recipe["out"])
    if recipe["train"] is not None:
        from vggtransfer.perceptual.style_training import train_style

        return train_style(recipe, resume=None)
    if recipe["model"] is not None:
        from vggtransfer.perceptual.style_painting import paint_with_network

        return paint_with_network(recipe)
    from vggtransfer.perceptual.style_painting import paint

    return paint(recipe)


def resume_stylize(run: Path, changes: Mapping[str, Any]) -> StylizeResult:
    """Continues a training run.

    Args:
        run: Its directory.
        changes: Options given anew, by name; they must be among `MAY_CHANGE` or equal what the recipe says.
    """
    recipe = resumed_recipe(stylize, run, changes, may_change=MAY_CHANGE)
    if recipe["train"] is None:
        raise OptionError(f"--resume {run}: is no training run, but a painted picture; paint it again")
    _check(recipe)
    from vggtransfer.perceptual.style_training import train_style

    return train_style(recipe, resume=run)


def _check(recipe: Mapping[str, Any]) -> None:
    content, style, train, model = (recipe[name] for name in ("content", "style", "train", "model"))
    if train is not None and (content is not None or model is not None):
        raise OptionError("--train trains on a folder; give --content and --model in a second call, when it is done")
    if train is None and content is None:
        raise OptionError("missing --content: the picture to paint (or --train: a folder to train a network on)")
    if model is not None and style is not None:
        raise OptionError("--model paints in the one style it was trained for; leave --style out")
    if model is None and style is None:
        raise OptionError("missing --style: the picture whose style is wanted")
    for name, (low, high) in _RANGES.items():
        if recipe[name] is not None and not low <= recipe[name] <= high:
            raise OptionError(f"--{name.replace('_', '-')} {recipe[name]} is not possible: use {low:,} to {high:,}")


_RANGES: dict[str, tuple[float, float]] = {
    "size": (32, 16384),
    "style_scale": (0.05, 20),
    "content_weight": (0, 1e12),
    "style_weight": (0, 1e12),
    "smoothness_weight": (0, 1e12),
    "iterations": (1, 10**6),
    "scales": (1, 10),
    "preview_seconds": (0, 1e6),
    "train_size": (64, 2048),
    "width": (4, 256),
}

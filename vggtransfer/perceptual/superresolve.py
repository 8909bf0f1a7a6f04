"""`vggtransfer superresolve`: a network learns to make pictures larger, by pixels and by how they look."""

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

MAY_CHANGE = ("data", "epochs", "lr", "precision", "device", "workers", "checkpoint_minutes")


@dataclass(frozen=True)
class SuperresolveResult:
    """What `superresolve` reached.

    Attributes:
        run: The run directory.
        model: The best network, a safetensors file.
        scores: Means over the validation pictures by method (`bicubic`, `network`) and metric.
    """

    run: Path
    model: Path
    scores: Mapping[str, Mapping[str, float]]


def superresolve(
    data: Path | None = None,
    *,
    factor: int = 4,
    width: int = 32,
    blocks: int = 8,
    crop: int = 96,
    perceptual_weight: float = 0.1,
    perceptual_layers: str = "relu2_2,relu3_3",
    net: ArchitectureName = "vgg16_bn_x0_25",
    weights: str = "default",
    epochs: int = 20,
    batch_size: int = 16,
    lr: float = 5e-4,
    val_fraction: float = 0.05,
    on_bad_image: Literal["skip", "stop"] = "skip",
    precision: Precision = "auto",
    workers: int | None = None,
    checkpoint_minutes: float = 10.0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    seed: int = 0,
    out: Path | None = None,
    resume: Path | None = None,
) -> SuperresolveResult:
    """Trains a small network that makes pictures larger, on photographs reduced bicubically.

    The loss is the mean absolute difference of pixels plus, weighed, that of maps of a VGG network (Johnson et al.
    2016, section 3.2). Pixels alone give the best PSNR and soft pictures; the more the maps count, the sharper and the
    less exact.

    At its end it compares the network with bicubic enlarging on the validation squares, by psnr, ssim and uncalibrated
    lpips through the small network of the package. Where training looked through that one too, lpips is no independent
    judge.

    Args:
        data: Folder of photographs, and folders below it.
        factor: 2 or 4.
        width: Channels of the network.
        blocks: Residual blocks of the network.
        crop: Side of the large squares it is trained on, in pixels; validation squares are twice as large.
        perceptual_weight: How much the maps count beside the pixels; 0 trains on pixels alone.
        perceptual_layers: Layers whose maps are compared, a comma list; all count the same.
        net: Network to look through. The small one comes with the package.
        weights: Its weights: `default`, `torchvision`, `timm`, `embedded`, or a file or run directory.
        epochs: Passes over the photographs.
        batch_size: Squares per step, over all processes together.
        lr: Peak learning rate, half a cosine down to 0.
        val_fraction: Part of the photographs that is not trained on; the network with the lowest loss there is kept.
        on_bad_image: `skip` lists unreadable photographs in the run directory; `stop` ends with the first one.
        precision: `auto` uses bfloat16 where the hardware is good at it.
        workers: Processes that load photographs; default: chosen for the machine.
        checkpoint_minutes: Minutes between checkpoints within an epoch.
        device: `auto` takes a GPU if there is one.
        seed: Seed of everything random.
        out: Run directory; default: `runs/superresolve/N` with the next free N.
        resume: Run directory to continue, exactly where its checkpoint stands, with the recipe that is there. Only data
            (the same pictures, moved), epochs, lr, precision, device, workers and checkpoint_minutes may be given anew;
            from Python, an argument that equals its default counts as not given.

    Returns:
        The network, and how it compares with bicubic enlarging.

    Raises:
        VGGTransferError: An option or a file cannot be used; says which and what to do.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state has been saved.
    """
    given = {name: value for name, value in locals().items() if name != "resume"}
    if resume is not None:
        defaults = {name: parameter.default for name, parameter in inspect.signature(superresolve).parameters.items()}
        changes = {name: value for name, value in given.items() if value != defaults[name]}
        return resume_superresolve(Path(resume), changes)
    recipe = checked_values(superresolve, given)
    _check(recipe)
    check_out(recipe["out"])
    from vggtransfer.perceptual.super_training import train_super

    return train_super(recipe, resume=None)


def resume_superresolve(run: Path, changes: Mapping[str, Any]) -> SuperresolveResult:
    """Continues a run.

    Args:
        run: Its directory.
        changes: Options given anew, by name; they must be among `MAY_CHANGE` or equal what the recipe says.
    """
    recipe = resumed_recipe(superresolve, run, changes, may_change=MAY_CHANGE)
    _check(recipe)
    from vggtransfer.perceptual.super_training import train_super

    return train_super(recipe, resume=run)


def _check(recipe: Mapping[str, Any]) -> None:
    if recipe["data"] is None:
        raise OptionError("missing --data: a folder of photographs")
    if recipe["factor"] not in (2, 4):
        raise OptionError(f"--factor {recipe['factor']} is not possible: use 2 or 4")
    if recipe["crop"] % recipe["factor"] or not 32 <= recipe["crop"] <= 2048:
        raise OptionError(f"--crop {recipe['crop']} is not possible: use a multiple of the factor from 32 to 2,048")
    for name, high in (("width", 512), ("blocks", 128)):
        if not 1 <= recipe[name] <= high:
            raise OptionError(f"--{name} {recipe[name]} is not possible: use 1 to {high}")
    if not recipe["perceptual_weight"] >= 0:
        raise OptionError(f"--perceptual-weight {recipe['perceptual_weight']} is not possible: use 0 or more")

"""`vggtransfer compare`: several networks trained alike, and one table of them."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.classification.head_names import PlainHeadName
from vggtransfer.comparison.options import MAY_CHANGE, check_options, network_names
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import OptionError
from vggtransfer.option_values import checked_values
from vggtransfer.training.optimizer_names import OptimizerName
from vggtransfer.training.resuming import resumed_recipe
from vggtransfer.training.run_paths import check_out

if TYPE_CHECKING:
    from vggtransfer.comparison.results import NetworkResult
    from vggtransfer.training.session import Session


@dataclass(frozen=True)
class ComparisonResult:
    """What `compare` found.

    Attributes:
        run: The run directory.
        networks: One result per network, in the order they were named.
        table: The tables and notes as they stand in comparison.md.
    """

    run: Path
    networks: tuple[NetworkResult, ...]
    table: str


def compare(
    data: Path | None = None,
    *,
    archs: str = "lenet5,alexnet,vgg16,vgg16_bn,vgg19_bn,googlenet,resnet18,densenet121",
    weights: Literal["none", "default"] = "none",
    head: PlainHeadName = "linear",
    initialisation: Literal["he", "glorot", "torch"] = "he",
    image_size: int | None = None,
    train_size: int | str | None = None,
    augmentation: str = "shift",
    train_limit: int | None = None,
    epochs: int = 20,
    batch_size: int = 128,
    optimizer: OptimizerName = "sgd",
    lr: float | None = None,
    weight_decay: float = 5e-4,
    momentum: float = 0.9,
    warmup_epochs: float | None = None,
    gradient_clip: float | None = None,
    label_smoothing: float = 0.1,
    precision: Precision = "auto",
    channels_last: bool = True,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    workers: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    resume: Path | None = None,
) -> ComparisonResult:
    """Trains several networks with the same budget on the same pictures and sets them side by side.

    All networks see the same training pictures in the same order. They are tested after each epoch, on `test/` if
    there is such a folder, else on `val/`, else on a fifth of the pictures set aside. Nothing is chosen by that: the
    table has the last epoch. Its training accuracy is the running one over the epoch's augmented pictures.

    VGG networks are ours, LeNet-5 too; the others are torchvision's. GoogLeNet goes without the two auxiliary heads
    that its paper trains with. torchvision's networks are made for 224x224: pictures of 32x32 are down to 8x8 after
    the first layers of GoogLeNet, ResNet-18 and DenseNet-121.

    The table is printed and saved after each network: comparison.md, comparison.csv, comparison.json, comparison.png,
    and epochs.csv with every epoch of every network.

    Args:
        data: Folder with `train/CLASS/*` and `test/CLASS/*` (or `val`), or with `CLASS/*`.
        archs: The networks, a comma list: any VGG architecture, alexnet, lenet5, googlenet, resnet18, densenet121.
        weights: `none` trains from scratch; `default` fine-tunes the published weights, with a new output layer.
        head: Head of the VGG networks: `linear` on global average pooling, `mlp`, or `vgg`: the original fc6 and fc7
            with their dropout.
        initialisation: Random weights from scratch: `he`, made for ReLUs, or to show what goes wrong without it:
            `glorot`, the default of Keras, or `torch`, that of PyTorch.
        image_size: Side of the square pictures in pixels; default: 32 from scratch, 224 with pretrained weights. A
            network that cannot take them gets the next multiple of 32 that it can (alexnet: 64), lenet5 always 32.
        train_size: Side of the training pictures where it is another one, or a schedule such as `"64 96@5"`. A network
            that cannot take such pictures gets others, which a note below the table tells.
        augmentation: `none`, `mirror` (images), `crops` (shifts and mirror images), `shift` or `cutout` (for
            thumbnails), `light`, `wide`, `standard`, `strong`, or a YAML file with a list of albumentations.
        train_limit: Use so many training pictures only, of each class in proportion, for a quick comparison.
        epochs: Passes over the training pictures.
        batch_size: Pictures per step.
        optimizer: `sgd` (with Nesterov momentum), `adamw` (without weight decay it is Adam), or `muon`.
        lr: Peak learning rate of all networks. Default: from scratch 0.1 with BatchNorm and 0.02 without for SGD,
            2e-3 and 2e-4 for the others; with pretrained weights 0.01 and 1e-3, a tenth of it in the pretrained layers.
        weight_decay: Weight decay of weights; biases and BatchNorm have none.
        momentum: Momentum of SGD and Muon, first beta of AdamW.
        warmup_epochs: Epochs of linear warm-up, before half a cosine down to 0. Default: a tenth of the run, at most 2;
            from scratch without BatchNorm a fifth, at most 4.
        gradient_clip: Largest norm of the gradient, 0 for no limit. Default: 1 from scratch without BatchNorm, else
            no limit.
        label_smoothing: Probability shared out over all classes.
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        channels_last: Memory layout that is faster on CPUs and CUDA GPUs; Apple GPUs go without.
        device: `auto` takes a GPU if there is one.
        workers: Processes that load pictures; default: chosen for the machine.
        seed: Seed of everything random: initial weights, pictures set aside, order, augmentation, dropout.
        out: Run directory; default: `runs/compare/N` with the next free N.
        resume: Run directory to continue, exactly where it was stopped. Networks that are finished stay as they are.
            `archs` adds networks behind those of the run and takes none away. Besides, only data (the same pictures,
            moved) and workers may be given anew.

    Returns:
        The networks and the table.

    Raises:
        VGGTransferError: An option, a file or the data cannot be used; says which and what to do.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state has been saved.
    """
    given = {name: value for name, value in locals().items() if name != "resume"}
    given["weights"] = "none" if weights is None else weights
    if resume is not None:
        defaults = {name: parameter.default for name, parameter in inspect.signature(compare).parameters.items()}
        return resume_compare(Path(resume), {name: value for name, value in given.items() if value != defaults[name]})
    return _run_recipe(checked_values(compare, given), resume=None)


def resume_compare(run: Path, changes: Mapping[str, Any]) -> ComparisonResult:
    """Continues a comparison.

    Args:
        run: Its directory.
        changes: Options given anew, by name; they must be among `MAY_CHANGE` or equal what the recipe says. Networks
            in `archs` are added to those of the recipe.
    """
    earlier = resumed_recipe(compare, run, {}, may_change=())["archs"]
    recipe = resumed_recipe(compare, run, changes, may_change=MAY_CHANGE)
    recipe["archs"] = ",".join(dict.fromkeys((*network_names(earlier), *network_names(recipe["archs"]))))
    return _run_recipe(recipe, resume=run)


def _run_recipe(recipe: dict[str, Any], *, resume: Path | None) -> ComparisonResult:
    check_options(recipe)
    if resume is None:
        check_out(recipe["out"])
    import torch

    from vggtransfer.training.session import Session

    session = Session(recipe["device"])
    if session.processes > 1:
        raise OptionError("compare trains in a single process: start it without torchrun")
    devices = [session.device] if session.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # training reseeds; the caller's own random numbers go on undisturbed
        result = _compare(recipe, session, resume)
    session.close()
    return result


def _compare(recipe: dict[str, Any], session: Session, resume: Path | None) -> ComparisonResult:
    from vggtransfer.comparison.networks import prefetch
    from vggtransfer.comparison.pictures import load_compared_pictures
    from vggtransfer.comparison.report import report
    from vggtransfer.comparison.setting import Setting
    from vggtransfer.comparison.training import earlier_results, train_network
    from vggtransfer.data.scan import write_bad_pictures
    from vggtransfer.printable import printable
    from vggtransfer.training.interruption import TrainingInterrupted
    from vggtransfer.training.run_directory import create_run_directory, write_environment, write_recipe, write_rows

    names = network_names(recipe["archs"])
    pictures = load_compared_pictures(recipe["data"], limit=recipe["train_limit"], seed=recipe["seed"], progress=True)
    setting = Setting.of(recipe, pictures, session.device)
    # Before the first file is written: a run that cannot go on like this must stay as it is.
    earlier = {} if resume is None else earlier_results(names, recipe, pictures, resume)
    if recipe["weights"] == "default":
        for arch in names:  # before hours of training, that is
            if arch not in earlier:
                prefetch(arch, recipe["head"])
    run = resume or create_run_directory("compare", recipe["out"])
    write_environment(run, device=session.device, processes=1)
    write_rows(run / "pictures.csv", pictures.rows())
    if pictures.pictures.bad:
        write_bad_pictures(run / "bad_images.csv", pictures.pictures.bad)
    write_recipe("compare", run, recipe, may_be_files=("augmentation",))
    print(f"{setting.title}\nwriting to {printable(run)}")
    for warning in pictures.pictures.warnings:
        print(f"warning: {printable(warning)}")

    results: list[NetworkResult] = []
    try:
        for arch in names:
            finished = earlier.get(arch)
            results.append(finished or train_network(arch, recipe, pictures, session, run))
            if finished is None or arch == names[-1]:
                table = report(results, setting, run, progress=f"{len(results)} of {len(names)} networks")
    except TrainingInterrupted:
        raise
    except KeyboardInterrupt:
        # Between two networks, or impatiently twice; what is saved is as good as ever.
        raise TrainingInterrupted(
            f"stopped. Go on with: vggtransfer compare --resume {shlex.quote(str(run))}", 130
        ) from None
    return ComparisonResult(run, tuple(results), table)

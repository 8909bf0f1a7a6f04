"""One network of a comparison, trained by the same loop as everything else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vggtransfer.cache import remove_leftovers
from vggtransfer.classification.model import MODEL_FILE
from vggtransfer.classification.objective import ClassificationObjective
from vggtransfer.comparison.memory import PeakMemory
from vggtransfer.comparison.networks import (
    build,
    count_macs,
    count_parameters,
    has_batch_norm,
    save_network,
    smallest_pictures,
)
from vggtransfer.comparison.options import MAY_CHANGE, Plan, finetune_recipe, image_size, plan_for
from vggtransfer.comparison.pictures import ComparedPictures
from vggtransfer.comparison.results import NetworkResult, read_result, write_result
from vggtransfer.data.dataset import PictureDataset
from vggtransfer.data.fixed_views import augmentation
from vggtransfer.data.transforms import evaluation_transform
from vggtransfer.errors import TrainingError
from vggtransfer.training.checkpoint import CHECKPOINT_FILE, find_checkpoint, load_checkpoint
from vggtransfer.training.contract import DivergedError, EpochRow
from vggtransfer.training.fit_options import fit_options
from vggtransfer.training.identity import fingerprint
from vggtransfer.training.loop import Fit
from vggtransfer.training.session import Session

# Options that the recipes of two starts may differ in; of the augmentation, what it says is compared.
_FREE = {*MAY_CHANGE, "out", "augmentation"}


def earlier_results(
    names: Sequence[str], recipe: dict[str, Any], pictures: ComparedPictures, run: Path
) -> dict[str, NetworkResult]:
    """The results of the networks that earlier starts of a comparison have finished, by name.

    Raises:
        TrainingError: A network, finished or not, was trained on other pictures or with other options; or its files are
            damaged.
    """
    results: dict[str, NetworkResult] = {}
    for arch in names:
        folder = run / arch
        if result := read_result(folder):
            results[arch] = result
            trained = result.identity
        elif find_checkpoint(folder):
            trained = load_checkpoint(folder, mapped=True)["identity"]
        else:
            continue
        for name, value in _identity(arch, recipe, pictures).items():
            if trained.get(name) != value:
                raise TrainingError(
                    f"--resume {run}: {name} has changed since the training of {arch} began; "
                    "restore it or start a new comparison"
                )
    return results


def train_network(
    arch: str, recipe: dict[str, Any], pictures: ComparedPictures, session: Session, run: Path
) -> NetworkResult:
    """Trains a network in `RUN/ARCH`, from its checkpoint there if there is one.

    At the end the checkpoint, three times as large as the weights, gives way to model.safetensors and result.json.

    Raises:
        TrainingError: The checkpoint belongs to other pictures or options, or cannot be written.
        TrainingInterrupted: A signal asked to stop; the state has been saved.
    """
    folder = run / arch
    memory = PeakMemory(session.device)
    memory.start()
    classes = pictures.pictures.classes
    torch.manual_seed(recipe["seed"])
    minimum = smallest_pictures(arch)
    network = build(
        arch,
        classes=classes,
        image_size=image_size(recipe),
        weights=recipe["weights"],
        head=recipe["head"],
        initialisation=recipe["initialisation"],
    )
    batch_norm = has_batch_norm(network.model)
    plan = plan_for(arch, recipe, batch_norm=batch_norm, minimum=minimum)
    parameters, macs = count_parameters(network.model), count_macs(network.model, plan.image_size)
    origin = network.backbone.origin if recipe["weights"] != "none" else f"random ({recipe['initialisation']})"
    (_, augment), *later = [(start, augmentation(recipe["augmentation"], side)) for start, side in plan.train_sizes]
    identity = _identity(arch, recipe, pictures)
    options = fit_options(_recipe_of(plan, recipe), session)
    print(
        f"\n{arch}: {parameters:,} parameters, {macs / 1e6:,.1f} million MACs at {plan.image_size}x{plan.image_size}, "
        f"weights: {origin}; peak rate {plan.learning_rate:g}, warm-up {plan.warmup_epochs:g} epochs, "
        + ("no clipping" if plan.gradient_clip is None else f"gradients clipped to {plan.gradient_clip:g}"),
        flush=True,
    )
    fit = Fit(
        network.model,
        encoder=network.backbone,
        objective=ClassificationObjective(len(classes), label_smoothing=recipe["label_smoothing"]),
        train=PictureDataset(pictures.pictures.train, augment, seed=recipe["seed"], later=later),
        validation=PictureDataset(pictures.pictures.val, evaluation_transform(plan.image_size), seed=recipe["seed"]),
        options=options,
        session=session,
        run=folder,
        save_model=None,
        after_epoch=_epoch_printer(arch, recipe["epochs"]),
        identity=identity,
        pretrained_layers=network.pretrained_layers,
        command="compare",
        resume_from=run,
    )
    if resumed := find_checkpoint(folder) is not None:
        fit.resume(load_checkpoint(folder))
    for place in (folder, folder / "checkpoint"):
        remove_leftovers(place)
    diverged = ""
    try:
        fit.run()
        save_network(network.model, folder / MODEL_FILE, arch=arch, classes=classes)
    except DivergedError as error:
        diverged = f"epoch {fit.progress.epoch + 1}, step {fit.progress.step + 1} of {fit.steps_per_epoch}"
        print(f"{arch} diverged: {str(error).partition(' in epoch')[0]} in {diverged}", flush=True)
    result = NetworkResult(
        arch=arch,
        diverged=diverged,
        origin=origin,
        image_size=plan.image_size,
        train_sizes=plan.train_sizes,
        parameters=parameters,
        macs=macs,
        batch_norm=batch_norm,
        learning_rate=plan.learning_rate,
        warmup_epochs=plan.warmup_epochs,
        gradient_clip=plan.gradient_clip,
        resumed=resumed,
        memory_mib=None if resumed else memory.mebibytes(),  # the peak may have been before the stop
        memory_heading=memory.heading,
        history=tuple(fit.progress.history),
        identity=identity,
    )
    write_result(result, folder)
    session.release()
    shutil.rmtree((folder / CHECKPOINT_FILE).parent)
    return result


def _recipe_of(plan: Plan, recipe: dict[str, Any]) -> dict[str, Any]:
    return {
        **finetune_recipe(recipe),
        "lr": plan.learning_rate,
        "backbone_lr": plan.backbone_learning_rate,
        "warmup_epochs": plan.warmup_epochs,
        "gradient_clip": plan.gradient_clip,
    }


def _identity(arch: str, recipe: dict[str, Any], pictures: ComparedPictures) -> dict[str, str]:
    augment = augmentation(recipe["augmentation"], image_size(recipe))  # its steps are those of any size
    return {
        "the network": f"{arch} with {len(pictures.pictures.classes)} classes",
        "the set of pictures": fingerprint(pictures.rows()),
        "the augmentation": fingerprint(augment.steps),
        "the recipe": fingerprint({name: value for name, value in recipe.items() if name not in _FREE}),
    }


def _epoch_printer(arch: str, epochs: int) -> Callable[[EpochRow], None]:
    def show(row: EpochRow) -> None:
        print(
            f"{arch}  epoch {row['epoch']:>3}/{epochs}  "
            f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.1%}   "
            f"test loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.1%}   "
            f"{row['images_per_second']:.0f} images/s",
            flush=True,
        )

    return show

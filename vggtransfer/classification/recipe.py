"""`vggtransfer finetune`: a folder of pictures becomes a classifier."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.classification.fit_options import check_recipe, chosen_augmentation, chosen_margin, train_sizes
from vggtransfer.classification.head_names import HeadName
from vggtransfer.classification.resuming import fixed_options, resume_finetune
from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.precision import Precision
from vggtransfer.option_values import checked_values
from vggtransfer.training.optimizer_names import OptimizerName
from vggtransfer.training.run_paths import check_out

if TYPE_CHECKING:
    from vggtransfer.training.session import Session


@dataclass(frozen=True)
class FinetuneResult:
    """What `finetune` reached.

    Attributes:
        run: The run directory.
        model: The best model, a safetensors file.
        best_epoch: Its epoch, counted from 1.
        best_accuracy: Its validation accuracy, 0 to 1.
        history: The rows of metrics.csv.
    """

    run: Path
    model: Path
    best_epoch: int
    best_accuracy: float
    history: tuple[dict[str, float | int | str], ...]


def finetune(
    data: Path | None = None,
    *,
    arch: ArchitectureName = "vgg16",
    weights: str = "default",
    unfreeze: str = "block5",
    head: HeadName = "linear",
    dropout: float = 0.5,
    margin: float | None = None,
    image_size: int = 224,
    train_size: int | str | None = None,
    augmentation: str = "auto",
    views: int | None = None,
    val_fraction: float = 0.2,
    on_bad_image: Literal["skip", "stop"] = "skip",
    epochs: int = 15,
    batch_size: int = 32,
    accumulate: int = 1,
    optimizer: OptimizerName = "adamw",
    lr: float = 1e-3,
    backbone_lr: float | None = None,
    layer_decay: float = 1.0,
    weight_decay: float = 0.01,
    momentum: float = 0.9,
    warmup_epochs: float = 1.0,
    gradient_clip: float | None = None,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    class_weights: Literal["none", "balanced"] = "none",
    sampling: Literal["shuffle", "balanced"] = "shuffle",
    ema: float = 0.0,
    patience: int | None = None,
    precision: Precision = "auto",
    channels_last: bool = True,
    compile: bool = False,  # noqa: A002  (the name of the option)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    workers: int | None = None,
    cache: Literal["auto", "off", "memory", "disk"] = "auto",
    cache_precision: Literal["auto", "fp32", "bf16", "int8"] = "auto",
    cache_size: float = 20.0,
    seed: int = 0,
    checkpoint_minutes: float = 10.0,
    tensorboard: bool = False,
    out: Path | None = None,
    resume: Path | None = None,
) -> FinetuneResult:
    """Trains a classifier on a folder of pictures, starting from pretrained weights or from scratch.

    Several GPUs: `torchrun --nproc-per-node N -m vggtransfer finetune ...` with the same options.

    Args:
        data: Folder with `train/CLASS/*` (and `val/CLASS/*`), or with `CLASS/*`; then a part is
            kept for validation.
        arch: Architecture of the backbone.
        weights: Starting weights: `default`, `torchvision`, `timm`, `embedded`, a checkpoint file, a run directory, or
            `none` for random ones.
        unfreeze: What trains beside the head: `none`, `all`, a block or layer, a range `block4-block5`, a comma list;
            or a schedule such as `"none block5@2"` (the head alone for 2 epochs, then block5 as well).
        head: `linear` on global average pooling, `mlp` with a hidden layer, `vgg`: the original fc6 and fc7, with
            their pretrained weights where there are any, or `arcface`: GeM pooling with a trained exponent, and classes
            as directions, for embeddings to search with (`vggtransfer index build --model RUN`).
        dropout: Probability of dropout in the head.
        margin: Angle in radians by which `arcface` draws the pictures of a class together; default: 0.3.
        image_size: Side of the square pictures the network sees, in pixels.
        train_size: Side of the training pictures where it is another one, or a schedule such as `"32 48@10 64@20"`:
            small pictures for the first 10 epochs, larger ones for 10 more, then the full size (progressive
            resizing). Validation stays at `image_size`.
        augmentation: `none`, `mirror` (images), `crops` (shifts and mirror images), `shift` or `cutout` (for
            thumbnails), `light`, `wide`, `standard`, `strong`, or a YAML file with a list of albumentations. `auto` is
            `mirror` for pretrained weights if nothing before block4 trains, else, and with views, mixup or cutmix,
            `standard`.
        views: Draw so many views of each picture once, for all epochs, instead of a new one in each; then `cache` can
            keep what the frozen part makes of them. `none`, `mirror` and `crops` have 1, 2 and 18 by themselves.
        val_fraction: Part of each class kept for validation where the folder has no `val`.
        on_bad_image: `skip` lists unreadable pictures in the run directory; `stop` ends with the first one.
        epochs: Passes over the training pictures.
        batch_size: Pictures per pass through the network, over all processes together.
        accumulate: Passes per optimizer step.
        optimizer: `adamw`, `sgd` (with Nesterov momentum), or `muon` for the convolutions with AdamW for the rest.
        lr: Peak learning rate of the head.
        backbone_lr: Peak learning rate of the last block; default: a tenth of `lr` for pretrained weights, `lr` for
            random ones.
        layer_decay: Factor on the learning rate from each block to the one before it.
        weight_decay: Weight decay of weights; biases and BatchNorm have none.
        momentum: Momentum of SGD and Muon, first beta of AdamW.
        warmup_epochs: Epochs of linear warm-up, before half a cosine down to 0.
        gradient_clip: Largest norm of the gradient; longer ones are shortened to it.
        label_smoothing: Probability shared out over all classes.
        mixup: Alpha of mixup; 0 turns it off.
        cutmix: Alpha of CutMix; 0 turns it off.
        class_weights: `balanced` weighs the loss inversely to the frequency of the class.
        sampling: `balanced` draws pictures of all classes equally often.
        ema: Decay of an exponential moving average of the weights, which is then what is validated and saved, for
            example 0.999; 0 turns it off.
        patience: Stop after so many epochs without a better validation accuracy (or the same with a lower loss).
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        channels_last: Memory layout that is faster on CPUs and CUDA GPUs; Apple GPUs go without.
        compile: Compile the model with torch.compile.
        device: `auto` takes a GPU if there is one.
        workers: Processes that load pictures; default: chosen for the machine.
        cache: Compute what the frozen layers answer to each view of a picture only once, and keep it on `disk` (where
            later runs find it), in `memory`, or where `auto` finds room if it saves enough; results stay the same but
            for rounding, and for the border of `crops`.
        cache_precision: `auto` keeps it as computed; `int8` takes half of the space of bfloat16 and rounds.
        cache_size: Gigabytes on disk, for all runs together; what was not used for longest makes room.
        seed: Seed of everything random: initial weights, split, order, augmentation, dropout.
        checkpoint_minutes: Minutes between checkpoints within an epoch; more are written after epochs, after each one
            unless writing would take more than a twentieth of the time.
        tensorboard: Also write TensorBoard events.
        out: Run directory; default: `runs/finetune/N` with the next free N.
        resume: Run directory to continue, exactly where its checkpoint stands, with the recipe that is there. Only data
            (the same pictures, moved), epochs, lr, backbone_lr, gradient_clip, precision, patience, workers, cache,
            cache_size, checkpoint_minutes and tensorboard may be given anew; from Python, an argument that equals its
            default counts as not given.

    Returns:
        What was reached and where it was written.

    Raises:
        VGGTransferError: An option, a file or the data cannot be used; says which and what to do.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state has been saved.
    """
    given = {name: value for name, value in locals().items() if name != "resume"}
    given["weights"] = "none" if weights is None else str(weights)
    if resume is not None:
        defaults = {name: parameter.default for name, parameter in inspect.signature(finetune).parameters.items()}
        return resume_finetune(Path(resume), {name: value for name, value in given.items() if value != defaults[name]})
    return run_recipe(checked_values(finetune, given), resume=None)


def run_recipe(recipe: dict[str, Any], *, resume: Path | None) -> FinetuneResult:
    """Runs a complete recipe: every option of `finetune` but `resume`, by name."""
    recipe = {**recipe, "augmentation": chosen_augmentation(recipe)}
    check_recipe(recipe)
    if resume is None:
        check_out(recipe["out"])
    import torch

    from vggtransfer.training.interruption import TrainingInterrupted
    from vggtransfer.training.session import Session

    session = Session(recipe["device"])
    devices = [session.device] if session.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):  # training reseeds; the caller's own random numbers go on undisturbed
            result = _train(recipe, session, resume)
    except TrainingInterrupted:
        session.close()
        raise
    session.close()
    return result


def _train(recipe: dict[str, Any], session: Session, resume: Path | None) -> FinetuneResult:
    import torch

    from vggtransfer.cache import remove_leftovers
    from vggtransfer.classification.model import MODEL_FILE, Task, build_classifier, load_classifier, save_classifier
    from vggtransfer.classification.objective import ClassificationObjective, balanced_class_weights
    from vggtransfer.classification.pictures import load_pictures
    from vggtransfer.classification.prefix import prefix_cache
    from vggtransfer.classification.reporting import announce, conclude
    from vggtransfer.data.dataset import PictureDataset
    from vggtransfer.data.fixed_views import augmentation
    from vggtransfer.data.transforms import evaluation_transform
    from vggtransfer.training.announcement import epoch_reporter
    from vggtransfer.training.checkpoint import find_checkpoint, load_checkpoint
    from vggtransfer.training.contract import Measure
    from vggtransfer.training.fit_options import fit_options
    from vggtransfer.training.identity import fingerprint
    from vggtransfer.training.loop import Fit
    from vggtransfer.training.run_directory import create_run_directory, write_recipe

    options = fit_options(recipe, session)
    sizes = train_sizes(recipe)
    transforms = [
        (start, augmentation(recipe["augmentation"], side, views=recipe["views"], seed=recipe["seed"]))
        for start, side in sizes
    ]
    (_, augment), *later = transforms
    plain = evaluation_transform(recipe["image_size"])
    pictures = session.on_main(
        lambda: load_pictures(
            recipe["data"],
            val_fraction=recipe["val_fraction"],
            seed=recipe["seed"],
            on_bad_image=recipe["on_bad_image"],
            progress=True,
        )
    )
    # A run that was killed before its first checkpoint begins again, from the same weights and seeds.
    state = load_checkpoint(resume) if resume is not None and find_checkpoint(resume) else None
    torch.manual_seed(recipe["seed"])
    model, pretrained_layers = build_classifier(
        recipe["arch"],
        Task(pictures.classes, recipe["image_size"], plain.crop_fraction, recipe["head"], recipe["dropout"]),
        weights=recipe["weights"],
        state=state,
    )
    run = session.on_main(lambda: resume or create_run_directory("finetune", recipe["out"]))

    labels = [sample.label for sample in pictures.train]
    balance = balanced_class_weights(labels, len(pictures.classes))
    cache = prefix_cache(recipe, pictures, transforms=transforms, plain=plain, options=options, session=session)
    fit = Fit(
        model,
        encoder=model.encoder,
        objective=ClassificationObjective(
            len(pictures.classes),
            label_smoothing=recipe["label_smoothing"],
            mixup=recipe["mixup"],
            cutmix=recipe["cutmix"],
            class_weights=balance if recipe["class_weights"] == "balanced" else None,
            margin=chosen_margin(recipe),
        ),
        train=PictureDataset(pictures.train, augment, seed=recipe["seed"], later=later),
        validation=PictureDataset(pictures.val, plain, seed=recipe["seed"]),
        options=options,
        session=session,
        run=run,
        save_model=lambda best: save_classifier(best, run / MODEL_FILE),
        after_epoch=epoch_reporter(
            run,
            epochs=options.epochs,
            tensorboard=recipe["tensorboard"] and session.is_main,
            training=Measure("accuracy"),
            validation=Measure("accuracy"),
        ),
        identity={
            "the model": f"{recipe['arch']} with head {recipe['head']} and {len(pictures.classes)} classes",
            "the set of pictures": fingerprint(pictures.rows()),
            "the augmentation": fingerprint(augment.steps),
            "the recipe": fingerprint(fixed_options(recipe)),
        },
        sample_weights=balance[labels] if recipe["sampling"] == "balanced" else None,
        frozen_part=cache,
        pretrained_layers={name: tuple(model.head.get_submodule(name).parameters()) for name in pretrained_layers},
    )
    if state is not None:
        fit.resume(state)
    if session.is_main:
        for folder in (run, run / "checkpoint"):
            remove_leftovers(folder)
        write_recipe("finetune", run, recipe, may_be_files=("weights", "augmentation"))
        announce(
            run,
            model=model,
            pictures=pictures,
            augmentation=augment.name,
            sizes=sizes,
            options=options,
            session=session,
        )
    progress = fit.run()
    if session.is_main:
        best = load_classifier(run).to(session.device)
        conclude(
            run,
            model=best,
            pictures=pictures,
            stage=None if cache is None else cache.stage_of(best),
            progress=progress,
            options=options,
            precision=recipe["precision"],
        )
    session.wait()
    return FinetuneResult(
        run=run,
        model=run / MODEL_FILE,
        best_epoch=progress.best_epoch + 1,
        best_accuracy=progress.best_accuracy,
        history=tuple(progress.history),
    )

"""`vggtransfer finetune`: a folder of pictures becomes a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vggtransfer.classification.head_names import HeadName
from vggtransfer.encoder.architectures import ArchitectureName
from vggtransfer.encoder.precision import Precision
from vggtransfer.errors import OptionError

if TYPE_CHECKING:
    from vggtransfer.classification.model import VGGClassifier
    from vggtransfer.classification.pictures import LabelledPictures


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
    image_size: int = 224,
    augmentation: str = "standard",
    val_fraction: float = 0.2,
    on_bad_image: Literal["skip", "stop"] = "skip",
    epochs: int = 15,
    batch_size: int = 32,
    accumulate: int = 1,
    optimizer: Literal["adamw", "sgd"] = "adamw",
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
        head: `linear` on global average pooling, `mlp` with a hidden layer, or `vgg`: the original fc6 and fc7, with
            their pretrained weights where there are any.
        dropout: Probability of dropout in the head.
        image_size: Side of the square pictures the network sees, in pixels.
        augmentation: `none`, `light`, `standard`, `strong`, or a YAML file with a list of albumentations.
        val_fraction: Part of each class kept for validation where the folder has no `val`.
        on_bad_image: `skip` lists unreadable pictures in the run directory; `stop` ends with the first one.
        epochs: Passes over the training pictures.
        batch_size: Pictures per pass through the network, over all processes together.
        accumulate: Passes per optimizer step.
        optimizer: `adamw` or `sgd` (with Nesterov momentum).
        lr: Peak learning rate of the head.
        backbone_lr: Peak learning rate of the last block; default: a tenth of `lr` for pretrained weights, `lr` for
            random ones.
        layer_decay: Factor on the learning rate from each block to the one before it.
        weight_decay: Weight decay of weights; biases and BatchNorm have none.
        momentum: Momentum of SGD, first beta of AdamW.
        warmup_epochs: Epochs of linear warm-up, before half a cosine down to 0.
        gradient_clip: Largest norm of the gradient; longer ones are shortened to it.
        label_smoothing: Probability shared out over all classes.
        mixup: Alpha of mixup; 0 turns it off.
        cutmix: Alpha of CutMix; 0 turns it off.
        class_weights: `balanced` weighs the loss inversely to the frequency of the class.
        sampling: `balanced` draws pictures of all classes equally often.
        ema: Decay of an exponential moving average of the weights, which is then what is validated and saved, for
            example 0.999; 0 turns it off.
        patience: Stop after so many epochs without a better validation accuracy.
        precision: `auto` uses bfloat16 where the hardware is good at it, else float32.
        channels_last: Memory layout that is faster on most hardware.
        compile: Compile the model with torch.compile.
        device: `auto` takes a GPU if there is one.
        workers: Processes that load pictures; default: chosen for the machine.
        seed: Seed of everything random: initial weights, split, order, augmentation, dropout.
        checkpoint_minutes: Minutes between checkpoints within an epoch; one more is written after each epoch.
        tensorboard: Also write TensorBoard events.
        out: Run directory; default: `runs/finetune/N` with the next free N.
        resume: Run directory to continue, exactly where its checkpoint stands. The recipe is read from there; only
            epochs, patience, workers, checkpoint_minutes and tensorboard may be given anew (with another value than
            their default).

    Returns:
        What was reached and where it was written.

    Raises:
        VGGTransferError: An option, a file or the data cannot be used; says which and what to do.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state has been saved.
    """
    recipe = {name: value for name, value in locals().items() if name != "resume"}
    from vggtransfer.training.session import Session

    if resume is not None:
        recipe = _recipe_to_resume(resume, recipe)
    if recipe["data"] is None:
        raise OptionError("missing --data: the folder with the pictures, one sub-folder per class")
    session = Session(recipe["device"])
    try:
        return _train(recipe, session, resume)
    finally:
        session.close()


def _train(recipe: dict[str, Any], session: Any, resume: Path | None) -> FinetuneResult:
    import torch

    from vggtransfer.classification.model import MODEL_FILE, load_classifier, save_classifier
    from vggtransfer.classification.objective import ClassificationObjective, balanced_class_weights
    from vggtransfer.classification.pictures import load_pictures
    from vggtransfer.classification.reporting import announce, conclude, epoch_reporter
    from vggtransfer.data.dataset import PictureDataset
    from vggtransfer.data.transforms import evaluation_transform, train_transform
    from vggtransfer.training.checkpoint import has_checkpoint
    from vggtransfer.training.loop import Fit

    options = _fit_options(recipe, session)
    augment = train_transform(recipe["augmentation"], recipe["image_size"])
    plain = evaluation_transform(recipe["image_size"])
    with session.main_first():
        pictures = load_pictures(
            Path(recipe["data"]),
            val_fraction=recipe["val_fraction"],
            seed=recipe["seed"],
            on_bad_image=recipe["on_bad_image"],
            progress=session.is_main,
        )
    torch.manual_seed(recipe["seed"])
    # A run that was killed before its first checkpoint begins again, from the same weights and seeds.
    goes_on = resume is not None and has_checkpoint(resume)
    model, pretrained_head = _build_model(recipe, pictures, crop_fraction=plain.crop_fraction, resumed=goes_on)
    run = session.from_main(_open_run(recipe, resume) if session.is_main else None)

    labels = [sample.label for sample in pictures.train]
    balance = balanced_class_weights(labels, len(pictures.classes))
    fit = Fit(
        model,
        encoder=model.encoder,
        objective=ClassificationObjective(
            len(pictures.classes),
            label_smoothing=recipe["label_smoothing"],
            mixup=recipe["mixup"],
            cutmix=recipe["cutmix"],
            class_weights=balance if recipe["class_weights"] == "balanced" else None,
        ),
        train=PictureDataset(pictures.train, augment, seed=recipe["seed"]),
        validation=PictureDataset(pictures.val, plain, seed=recipe["seed"]),
        options=options,
        session=session,
        run=run,
        save_model=lambda best: save_classifier(best, run / MODEL_FILE),
        after_epoch=epoch_reporter(run, epochs=options.epochs, tensorboard=recipe["tensorboard"]),
        identity={
            "the model": f"{recipe['arch']} with head {recipe['head']} and {len(pictures.classes)} classes",
            "the set of training pictures": pictures.fingerprint,
        },
        sample_weights=balance[labels] if recipe["sampling"] == "balanced" else None,
        pretrained_head=pretrained_head,
    )
    if goes_on:
        fit.resume()
    if session.is_main:
        announce(run, model=model, pictures=pictures, options=options, session=session)
    progress = fit.run()
    if session.is_main:
        best = load_classifier(run).to(session.device)
        conclude(run, model=best, pictures=pictures, progress=progress, options=options, precision=recipe["precision"])
    session.wait()
    return FinetuneResult(
        run=run,
        model=run / MODEL_FILE,
        best_epoch=progress.best_epoch + 1,
        best_accuracy=progress.best_accuracy,
        history=tuple(progress.history),
    )


def _fit_options(recipe: dict[str, Any], session: Any) -> Any:
    from vggtransfer.data.loader import resolve_workers
    from vggtransfer.encoder.architectures import architecture
    from vggtransfer.encoder.freezing import parse_unfreeze
    from vggtransfer.encoder.precision import resolve_precision
    from vggtransfer.training.contract import FitOptions
    from vggtransfer.training.schedule import parse_unfreeze_schedule

    _check_ranges(recipe)
    stages = parse_unfreeze_schedule(recipe["unfreeze"])
    for stage in stages:
        parse_unfreeze(stage.policy, architecture(recipe["arch"]))
    rate = recipe["lr"]
    slower = rate if recipe["weights"] == "none" else rate / 10
    return FitOptions(
        epochs=recipe["epochs"],
        stages=stages,
        batch_size=recipe["batch_size"],
        accumulate=recipe["accumulate"],
        optimizer=recipe["optimizer"],
        learning_rate=rate,
        backbone_learning_rate=slower if recipe["backbone_lr"] is None else recipe["backbone_lr"],
        layer_decay=recipe["layer_decay"],
        weight_decay=recipe["weight_decay"],
        momentum=recipe["momentum"],
        warmup_epochs=recipe["warmup_epochs"],
        gradient_clip=recipe["gradient_clip"],
        ema=recipe["ema"],
        patience=recipe["patience"],
        precision=resolve_precision(recipe["precision"], session.device),
        channels_last=recipe["channels_last"],
        compile=recipe["compile"],
        workers=resolve_workers(recipe["workers"], device=session.device, processes=session.processes),
        seed=recipe["seed"],
        checkpoint_minutes=recipe["checkpoint_minutes"],
    )


_RANGES: dict[str, tuple[float, float, str]] = {
    "dropout": (0, 0.999, "a probability below 1"),
    "image_size": (32, 4096, "at least 32: five poolings halve the picture five times"),
    "epochs": (1, 10**6, "at least 1"),
    "batch_size": (1, 10**6, "at least 1"),
    "accumulate": (1, 10**6, "at least 1"),
    "lr": (0, 1e3, "not negative"),
    "backbone_lr": (0, 1e3, "not negative"),
    "layer_decay": (0, 1, "from 0 to 1"),
    "weight_decay": (0, 1e3, "not negative"),
    "momentum": (0, 0.9999, "from 0 to below 1"),
    "warmup_epochs": (0, 10**6, "not negative"),
    "gradient_clip": (1e-12, 1e12, "above 0"),
    "label_smoothing": (0, 0.999, "from 0 to below 1"),
    "mixup": (0, 1e3, "not negative"),
    "cutmix": (0, 1e3, "not negative"),
    "ema": (0, 0.999999, "from 0 to below 1"),
    "patience": (1, 10**6, "at least 1"),
    "workers": (0, 1024, "not negative"),
    "checkpoint_minutes": (0, 1e6, "not negative"),
    "seed": (0, 2**63 - 1, "not negative"),
    "val_fraction": (0.001, 0.9, "from 0.001 to 0.9"),
}


def _check_ranges(recipe: dict[str, Any]) -> None:
    for name, (low, high, words) in _RANGES.items():
        value = recipe[name]
        if value is not None and not low <= value <= high:
            raise OptionError(f"--{name.replace('_', '-')} {value} must be {words}")


def _build_model(
    recipe: dict[str, Any], pictures: LabelledPictures, *, crop_fraction: float, resumed: bool
) -> tuple[VGGClassifier, tuple[Any, ...]]:
    """Returns the model with its starting weights, and the parameters of its head that are pretrained."""
    from vggtransfer.classification.head import load_pretrained_layers
    from vggtransfer.classification.model import Task, VGGClassifier
    from vggtransfer.encoder.vgg import VGGEncoder
    from vggtransfer.encoder.weights import load_weights

    classifier: dict[str, Any] = {}
    if recipe["head"] == "vgg" and recipe["weights"] != "none":
        # Before the encoder, so that a download serves both.
        classifier = load_weights(recipe["arch"], recipe["weights"], classifier="if present").classifier
    encoder = VGGEncoder(recipe["arch"], weights=None if resumed else recipe["weights"], layers=["pool5"])
    task = Task(pictures.classes, recipe["image_size"], crop_fraction, recipe["head"], recipe["dropout"])
    model = VGGClassifier(encoder, task)
    filled = load_pretrained_layers(model.head, classifier)
    return model, tuple(parameter for name in filled for parameter in model.head.get_submodule(name).parameters())


def _open_run(recipe: dict[str, Any], resume: Path | None) -> Path:
    """Creates the run directory with its recipe, or reopens one."""
    from vggtransfer.cache import write_atomically
    from vggtransfer.recipe_files import resolved_recipe
    from vggtransfer.training.run_directory import create_run_directory

    run = create_run_directory("finetune", recipe["out"]) if resume is None else resume
    saved = {**recipe, "data": Path(recipe["data"]).resolve(), "out": None}
    with write_atomically(run / "recipe.yaml") as temporary:
        temporary.write_text(resolved_recipe("finetune", saved), encoding="utf-8")
    return run


_MAY_CHANGE_ON_RESUME = ("epochs", "patience", "workers", "checkpoint_minutes", "tensorboard")


def _recipe_to_resume(run: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a run, with those options that are given anew."""
    import inspect

    from vggtransfer.recipe_files import read_recipe

    path = run / "recipe.yaml"
    if not path.is_file():
        raise OptionError(f"--resume {run}: no recipe.yaml there; give a run directory such as runs/finetune/1")
    recipe = read_recipe(path)
    parameters = inspect.signature(finetune).parameters
    for name, value in given.items():
        if value == parameters[name].default or value == recipe.get(name):
            continue
        if name == "data" and Path(str(value)).resolve() == Path(str(recipe["data"])):
            continue
        if name not in _MAY_CHANGE_ON_RESUME:
            raise OptionError(
                f"--resume {run}: --{name.replace('_', '-')} cannot be changed in a run that goes on; "
                f"only {', '.join(_MAY_CHANGE_ON_RESUME)} can. Leave it out or start a new run"
            )
        recipe[name] = value
    return {**{name: parameter.default for name, parameter in parameters.items() if name != "resume"}, **recipe}

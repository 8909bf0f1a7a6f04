"""A run of `vggtransfer segment`, from its recipe to its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggtransfer.segmentation.options import (
    MAY_CHANGE,
    check_batch_norm,
    check_recipe,
    crop_size,
    decoder_options,
    fixed_options,
)
from vggtransfer.training.resuming import resumed_recipe
from vggtransfer.training.run_paths import check_out

if TYPE_CHECKING:
    from vggtransfer.training.session import Session


@dataclass(frozen=True)
class SegmentResult:
    """What `segment` reached.

    Attributes:
        run: The run directory.
        model: The best model, a safetensors file.
        best_epoch: Its epoch, counted from 1.
        best_mean_iou: Its mean intersection over union on the validation pictures, 0 to 1.
        history: The rows of metrics.csv.
    """

    run: Path
    model: Path
    best_epoch: int
    best_mean_iou: float
    history: tuple[dict[str, float | int | str], ...]


def resume_segment(run: Path, changes: Mapping[str, Any]) -> SegmentResult:
    """Continues a run.

    Args:
        run: Its directory.
        changes: Options given anew, by name; they must be among `MAY_CHANGE` or equal what the recipe says.
    """
    from vggtransfer.segmentation.recipe import segment

    return run_recipe(resumed_recipe(segment, run, changes, may_change=MAY_CHANGE), resume=run)


def run_recipe(recipe: dict[str, Any], *, resume: Path | None) -> SegmentResult:
    """Runs a complete recipe: every option of `segment` but `resume`, by name."""
    from vggtransfer.segmentation.recipe import segment

    check_recipe(recipe, segment)
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


def _train(recipe: dict[str, Any], session: Session, resume: Path | None) -> SegmentResult:
    import torch

    from vggtransfer.cache import remove_leftovers
    from vggtransfer.data.masked_transforms import MaskedTransform
    from vggtransfer.data.seen_size import parse_seen_size
    from vggtransfer.segmentation.balance import class_balance
    from vggtransfer.segmentation.dataset import TrainingMasks, WholeMasks, batch_kinds
    from vggtransfer.segmentation.model import (
        MODEL_FILE,
        TrainedSegmenter,
        build_segmenter,
        load_segmenter,
        pretrained_layers,
        save_segmenter,
    )
    from vggtransfer.segmentation.objective import SCORE, SegmentationObjective
    from vggtransfer.segmentation.pictures import load_pictures
    from vggtransfer.segmentation.reporting import announce, conclude
    from vggtransfer.training.announcement import epoch_reporter
    from vggtransfer.training.checkpoint import find_checkpoint, load_checkpoint
    from vggtransfer.training.fit_options import fit_options
    from vggtransfer.training.identity import fingerprint
    from vggtransfer.training.loop import Fit
    from vggtransfer.training.run_directory import create_run_directory, write_recipe

    options, decoder = fit_options(recipe, session), decoder_options(recipe)
    seen = parse_seen_size("image-size", recipe["image_size"])
    augment = MaskedTransform(recipe["augmentation"], seen=seen, crop=crop_size(recipe))
    pictures = session.on_main(
        lambda: load_pictures(
            recipe["data"],
            classes=recipe["classes"],
            ignore=recipe["ignore"],
            task=recipe["task"],
            val_fraction=recipe["val_fraction"],
            seed=recipe["seed"],
            on_bad_image=recipe["on_bad_image"],
            progress=True,
        )
    )
    check_batch_norm(recipe, pictures=len(pictures.train), processes=session.processes)
    coding = pictures.coding
    # A run that was killed before its first checkpoint begins again, from the same weights and seeds.
    state = load_checkpoint(resume) if resume is not None and find_checkpoint(resume) else None
    torch.manual_seed(recipe["seed"])
    model = build_segmenter(
        recipe["arch"], decoder, classes=len(coding.names), weights="none" if state is not None else recipe["weights"]
    )
    run = session.on_main(lambda: resume or create_run_directory("segment", recipe["out"]))
    objective = SegmentationObjective(
        recipe["loss"],
        classes=len(coding.names),
        task=coding.task,
        class_weights=class_balance(pictures) if recipe["class_weights"] == "balanced" else None,
        label_smoothing=recipe["label_smoothing"],
    )
    fit = Fit(
        model,
        encoder=model.encoder,
        objective=objective,
        train=TrainingMasks(pictures.train, augment, coding=coding, seed=recipe["seed"]),
        validation=WholeMasks(pictures.val, seen, coding=coding),
        validation_kinds=batch_kinds(pictures.val, pictures.sizes, seen, crop=augment.crop),
        options=options,
        session=session,
        run=run,
        save_model=lambda best: save_segmenter(
            TrainedSegmenter(best, decoder, coding, str(recipe["image_size"]).lower()), run / MODEL_FILE
        ),
        after_epoch=epoch_reporter(
            run,
            epochs=options.epochs,
            tensorboard=recipe["tensorboard"] and session.is_main,
            training=objective.training_measure,
            validation=SCORE,
        ),
        identity={
            "the model": f"{recipe['arch']} with {decoder} and {len(coding.names)} classes",
            "the set of pictures": fingerprint(pictures.rows()),
            "the meaning of the masks": fingerprint((coding.as_dict(), sorted(pictures.pixels.values()))),
            "the augmentation": fingerprint(augment.steps),
            "the recipe": fingerprint(fixed_options(recipe)),
        },
        pretrained_layers=pretrained_layers(model, names=None if state is None else tuple(state["pretrained_layers"])),
        command="segment",
    )
    if state is not None:
        fit.resume(state)
    if session.is_main:
        for folder in (run, run / "checkpoint"):
            remove_leftovers(folder)
        files = [name for name in ("weights", "augmentation", "classes") if isinstance(recipe[name], str)]
        write_recipe("segment", run, recipe, may_be_files=files)
        announce(run, model=model, pictures=pictures, augmentation=augment, options=options, session=session)
    progress = fit.run()
    if session.is_main:
        conclude(
            run,
            trained=load_segmenter(run),
            device=session.device,
            pictures=pictures,
            progress=progress,
            options=options,
            precision=recipe["precision"],
        )
    session.wait()
    return SegmentResult(
        run=run,
        model=run / MODEL_FILE,
        best_epoch=progress.best_epoch + 1,
        best_mean_iou=progress.best_accuracy,
        history=tuple(progress.history),
    )

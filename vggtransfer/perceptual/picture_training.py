"""A training run from pictures to pictures: what style networks and super-resolution have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vggtransfer.cache import remove_leftovers
from vggtransfer.data.loader import resolve_workers
from vggtransfer.data.scan import write_bad_pictures
from vggtransfer.encoder.precision import prefers_channels_last, resolve_precision
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.training_pictures import TrainingPictures, fingerprint, load_training_pictures
from vggtransfer.printable import printable
from vggtransfer.training.checkpoint import find_checkpoint, load_checkpoint
from vggtransfer.training.contract import EpochRow, FitOptions, Objective, Progress
from vggtransfer.training.interruption import TrainingInterrupted
from vggtransfer.training.loop import Fit
from vggtransfer.training.run_directory import create_run_directory, write_environment, write_recipe, write_rows
from vggtransfer.training.schedule import Stage
from vggtransfer.training.session import DeviceName, Session

MODEL_FILE = "model.safetensors"

_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 10**6),
    "batch_size": (1, 10**6),
    "lr": (0, 1e6),
    "val_fraction": (0.001, 0.9),
    "workers": (0, 1024),
    "checkpoint_minutes": (0, 1e6),
    "seed": (0, 2**63 - 1),
}


class WholeNetwork:
    """What the loop takes for a backbone where there is none: all parameters train, at one rate."""

    unfreeze_policy = "all"
    origin = "random"
    digest: str | None = None

    def unfreeze(self, policy: str) -> None:
        self.unfreeze_policy = policy

    def blocks(self) -> Sequence[Sequence[nn.Parameter]]:
        return []


@dataclass(frozen=True)
class PictureJob:
    """What is to be trained.

    Attributes:
        model: With its starting weights.
        objective: What to minimise.
        train: Samples (picture uint8, target, index) by (epoch, index).
        validation: The same.
        save_model: Writes a model to a run directory.
        identity: What a checkpoint must have in common with this run beside pictures and recipe, by name.
    """

    model: nn.Module
    objective: Objective
    train: Dataset[Any]
    validation: Dataset[Any]
    save_model: Callable[[Any, Path], object]
    identity: Mapping[str, str]


def check_training_options(recipe: Mapping[str, Any]) -> None:
    """Finds values that cannot be used.

    Raises:
        OptionError: Says which.
    """
    for name, (low, high) in _RANGES.items():
        value = recipe[name]
        if value is not None and not low <= value <= high:
            raise OptionError(f"--{name.replace('_', '-')} {value} is not possible: use {low:,} to {high:,}")


def train_on_pictures(
    command: str,
    recipe: Mapping[str, Any],
    folder: Path,
    *,
    resume: Path | None,
    fixed: Sequence[str],
    may_be_files: Sequence[str],
    build: Callable[[TrainingPictures, Session], PictureJob],
    conclude: Callable[[Path, Progress, torch.device], None],
) -> Path:
    """Runs a complete recipe; returns the run directory.

    Args:
        command: Its name.
        recipe: Every option of the command but `resume`, by name.
        folder: The pictures.
        resume: Run directory to continue.
        fixed: Options that a checkpoint must have in common with the recipe that resumes it.
        may_be_files: See `write_recipe`.
        build: Makes the job for these pictures; called with the seed set.
        conclude: Called in the main process with the run directory, what was reached, and the device.

    Raises:
        VGGTransferError: The recipe or the pictures cannot be used.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state has been saved.
    """
    with _session(recipe["device"]) as session:
        options = _fit_options(recipe, session)
        pictures = session.on_main(
            lambda: load_training_pictures(
                folder, val_fraction=recipe["val_fraction"], seed=recipe["seed"], on_bad_image=recipe["on_bad_image"]
            )
        )
        state = load_checkpoint(resume) if resume is not None and find_checkpoint(resume) else None
        torch.manual_seed(recipe["seed"])
        job = build(pictures, session)
        run = session.on_main(lambda: resume or create_run_directory(command, recipe["out"]))

        def save(best: Any) -> None:
            job.save_model(best, run)

        fit = Fit(
            job.model,
            encoder=WholeNetwork(),
            objective=job.objective,
            train=job.train,
            validation=job.validation,
            options=options,
            session=session,
            run=run,
            save_model=save,
            after_epoch=lambda row: _print_epoch(row, options.epochs),
            identity={
                **job.identity,
                "the set of pictures": fingerprint(pictures.rows()),
                "the recipe": fingerprint({name: recipe[name] for name in fixed}),
            },
            command=command,
        )
        if state is not None:
            fit.resume(state)
        if session.is_main:
            for place in (run, run / "checkpoint"):
                remove_leftovers(place)
            write_recipe(command, run, recipe, may_be_files=may_be_files)
            if pictures.bad:
                write_bad_pictures(run / "bad_images.csv", pictures.bad)
            write_rows(run / "pictures.csv", pictures.rows())
            write_environment(run, device=session.device, processes=session.processes)
            parameters = sum(parameter.numel() for parameter in job.model.parameters())
            unreadable = f"; {len(pictures.bad)} unreadable, listed in bad_images.csv" if pictures.bad else ""
            print(
                f"{len(pictures.train)} training and {len(pictures.validation)} validation pictures{unreadable}\n"
                f"{parameters:,} parameters; {session.processes} x {session.device.type}, "
                f"{str(options.precision).removeprefix('torch.')}; writing to {printable(run)}",
                flush=True,
            )
        progress = fit.run()
        if session.is_main:
            conclude(run, progress, session.device)
        session.wait()
        return run


@contextmanager
def _session(device: DeviceName) -> Iterator[Session]:
    session = Session(device)
    devices = [session.device] if session.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):  # training reseeds; the caller's own random numbers go on undisturbed
            yield session
    except TrainingInterrupted:
        session.close()
        raise
    session.close()


def _fit_options(recipe: Mapping[str, Any], session: Session) -> FitOptions:
    rate = recipe["lr"]
    return FitOptions(
        epochs=recipe["epochs"],
        stages=(Stage(0, "all"),),
        batch_size=recipe["batch_size"],
        accumulate=1,
        optimizer="adamw",
        learning_rate=rate,
        backbone_learning_rate=rate,
        layer_decay=1.0,
        weight_decay=0.0,
        momentum=0.9,
        warmup_epochs=0.0,
        gradient_clip=None,
        ema=0.0,
        patience=None,
        precision=resolve_precision(recipe["precision"], session.device),
        channels_last=prefers_channels_last(session.device),
        compile=False,
        workers=resolve_workers(recipe["workers"], device=session.device, processes=session.processes),
        seed=recipe["seed"],
        checkpoint_minutes=recipe["checkpoint_minutes"],
    )


def _print_epoch(row: EpochRow, epochs: int) -> None:
    known = ("epoch", "step", "unfreeze", "learning_rate", "seconds", "images_per_second")
    figures = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in row.items() if name not in known)
    print(f"epoch {row['epoch']:>3}/{epochs}  {figures}  {row['images_per_second']:.0f} images/s", flush=True)


def batch_mean_to_sum(mean: Tensor, pictures: Tensor) -> Tensor:
    """From a mean over the pictures of a batch to the sum that the loop adds up, detached."""
    return mean.detach().float() * len(pictures)

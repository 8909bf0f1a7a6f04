"""The training loop: epochs of optimizer steps, validation, best model, exact resumption."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vggtransfer.data.loader import Batches, network_input, picture_loader, shared_batches, stop_workers
from vggtransfer.encoder.precision import autocast
from vggtransfer.errors import BadImageError, TrainingError
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.training.checkpoint import CHECKPOINT_FILE, save_checkpoint
from vggtransfer.training.contract import (
    Backbone,
    DivergedError,
    EpochRow,
    FitOptions,
    FrozenPart,
    Objective,
    Progress,
    Rest,
)
from vggtransfer.training.epoch_rows import epoch_row, running_figures
from vggtransfer.training.interruption import StopRequest, TrainingInterrupted, stop_requests
from vggtransfer.training.learner import Learner, NotFiniteError, StepResult
from vggtransfer.training.run_directory import write_rows
from vggtransfer.training.sampling import batch_geometry, epoch_order, epoch_passes
from vggtransfer.training.schedule import stage_at
from vggtransfer.training.session import Session


class Fit:
    """One training run.

    Args:
        model: The whole model, on the CPU, with its starting weights.
        encoder: Its backbone, a VGGEncoder for example, to which the freezing policies apply.
        objective: What to minimise.
        train: Samples (picture uint8, target, index) by (epoch, index).
        validation: The same for validation.
        options: How to train.
        session: The processes that train.
        run: Run directory; the main process writes `checkpoint/` and `metrics.csv` there.
        save_model: Writes a model as the best one so far; called in the main process.
        after_epoch: Called in the main process with the row of each epoch.
        identity: What a checkpoint must have in common with this run to be resumed, by name.
        sample_weights: Weights [len(train)] of a balanced draw; None shuffles.
        validation_kinds: One value per validation sample, such as its size; only equal ones share a batch.
        pretrained_layers: Parameters outside the encoder that train at the backbone's rate, by layer.
        frozen_part: Spares the loop what the frozen part of the model would compute again and again.
        command: The command that trains, for messages that say how to go on.
        resume_from: What its `--resume` takes, for these messages; default: `run`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder: Backbone,
        objective: Objective,
        train: Dataset[Any],
        validation: Dataset[Any],
        options: FitOptions,
        session: Session,
        run: Path,
        save_model: Callable[[Any], None],
        after_epoch: Callable[[EpochRow], None],
        identity: dict[str, str],
        sample_weights: Tensor | None = None,
        validation_kinds: Sequence[Hashable] | None = None,
        pretrained_layers: Mapping[str, tuple[nn.Parameter, ...]] = MappingProxyType({}),
        frozen_part: FrozenPart | None = None,
        command: str = "finetune",
        resume_from: Path | None = None,
    ) -> None:
        self.resume_from = resume_from or run
        self.go_on = f"vggtransfer {command} --resume {shlex.quote(str(self.resume_from))}"
        self.options, self.session, self.run_directory = options, session, run
        self.encoder, self.objective = encoder, objective
        self.save_model, self.after_epoch, self.identity = save_model, after_epoch, identity
        self.sample_weights, self.frozen_part = sample_weights, frozen_part
        self.rest: Rest | None = None
        self.stage: tuple[str, int | None] | None = None
        self.train_count, self.validation_count = len(train), len(validation)  # type: ignore[arg-type]
        self.pass_size, self.steps_per_epoch = batch_geometry(
            self.train_count,
            batch_size=options.batch_size,
            accumulate=options.accumulate,
            processes=session.processes,
        )
        self.learner = Learner(
            model,
            encoder=encoder,
            objective=objective,
            options=options,
            session=session,
            steps_per_epoch=self.steps_per_epoch,
            pretrained_layers=pretrained_layers,
        )
        self.progress = Progress()
        pin = session.device.type == "cuda"
        self.train_batches = Batches()
        self.train_loader = picture_loader(train, self.train_batches, workers=options.workers, pin_memory=pin)
        shares = shared_batches(
            self.validation_count, self.pass_size, processes=session.processes, kinds=validation_kinds
        )
        self.validation_batches, self.common_batches = Batches(shares[session.rank]), min(map(len, shares))
        self.validation_loader = picture_loader(
            validation, self.validation_batches, workers=options.workers, pin_memory=pin
        )

    def resume(self, state: dict[str, Any]) -> None:
        """Takes up the run where a checkpoint left it.

        Raises:
            TrainingError: It is the checkpoint of a run on other data or of another model.
        """
        for name, value in self.identity.items():
            if state["identity"].get(name) != value:
                raise TrainingError(
                    f"--resume {self.resume_from}: {name} has changed since the run began "
                    f"({state['identity'].get(name)} then, {value} now); restore it or start a new run"
                )
        self.progress = Progress(**state["progress"])
        if self.options.epochs < self.progress.epoch:
            raise TrainingError(
                f"--resume {self.resume_from}: {self.progress.epoch} epochs are already done, --epochs "
                f"{self.options.epochs} is fewer"
            )
        self.learner.load_state(state)

    def run(self) -> Progress:
        """Trains to the last epoch and returns what was reached.

        Raises:
            BadImageError: A picture cannot be read any more.
            DivergedError: The loss or a gradient is not finite; the last checkpoint stays usable.
            TrainingError: The checkpoint cannot be written.
            TrainingInterrupted: A signal asked to stop; the state has been saved.
        """
        if self.progress == Progress():
            self._save()
        try:
            with stop_requests() as request:
                while self.progress.epoch < self.options.epochs and not self._has_lost_patience():
                    self._begin_epoch(request)
                    self._train_epoch(request)
                    self._end_epoch(*self._validate(request))
        except BadImageError as error:
            raise BadImageError(f"{error}; put it back as it was, then go on with: {self.go_on}") from None
        finally:
            stop_workers(self.train_loader)
            stop_workers(self.validation_loader)
        return self.progress

    def _begin_epoch(self, request: StopRequest) -> None:
        """Where a stage begins: applies its freezing policy, and finds out what of the model is left to run."""
        epoch, learner, frozen_part = self.progress.epoch, self.learner, self.frozen_part
        policy = stage_at(self.options.stages, epoch).value
        stage = policy, None if frozen_part is None else frozen_part.stage(epoch)
        if stage == self.stage:
            return
        if policy != self.encoder.unfreeze_policy:
            learner.unfreeze(policy)
        if frozen_part is not None:
            for loader in (self.train_loader, self.validation_loader):
                stop_workers(loader)
            self.rest = None  # so that the maps of the stage before can go first
            average = None if learner.ema is None else learner.best
            self.rest = frozen_part.enter(epoch, learner.model, average=average, stopped=request.is_made)
            if self._any(request.is_made()):
                self._save()
                self._stop(request)
        learner.feed(self.rest)
        self.stage = stage

    def _train_epoch(self, request: StopRequest) -> None:
        progress, options = self.progress, self.options
        self.learner.model.train()
        passes = epoch_passes(
            epoch_order(self.train_count, seed=options.seed, epoch=progress.epoch, weights=self.sample_weights),
            epoch=progress.epoch,
            size=self.pass_size,
            rank=self.session.rank,
            processes=self.session.processes,
        )
        self.train_batches.keys = passes[progress.step * options.accumulate : self.steps_per_epoch * options.accumulate]
        batches = iter(self.train_loader) if self.rest is None else self.rest.train_batches(self.train_batches.keys)
        title = f"epoch {progress.epoch + 1}/{options.epochs}"
        last_saved = time.monotonic()
        with ProgressBar(title, steps=self.steps_per_epoch, done=progress.step, shown=self.session.is_main) as bar:
            while progress.step < self.steps_per_epoch:
                began = time.monotonic()
                overdue = began - last_saved > 60 * options.checkpoint_minutes
                result = self._step(batches, request.is_made(), overdue)
                stop, save = result.flags
                progress.step += 1
                for place, value in enumerate((result.loss, result.measured, result.seen, time.monotonic() - began)):
                    progress.sums[place] += value
                bar.advance(running_figures(result, progress.sums, measure=self.objective.training_measure))
                if stop or save:
                    self._save()
                    last_saved = time.monotonic()
                if stop:
                    self._stop(request)

    def _step(self, batches: Iterator[list[Tensor]], *flags: bool) -> StepResult:
        epoch, number = self.progress.epoch, self.progress.step
        try:
            return self.learner.step(batches, epoch=epoch, number=number, flags=flags)
        except NotFiniteError as error:
            run, resume_from = (shlex.quote(str(path)) for path in (self.run_directory, self.resume_from))
            raise DivergedError(
                f"{error} in epoch {epoch + 1}, step {number + 1}; stopped before it touched the weights, and "
                f"{run}/{CHECKPOINT_FILE} is as it was. Lower --lr, set --gradient-clip 1 or use --precision fp32: in "
                f"a new run, or with --resume {resume_from}"
            ) from None

    def _validate(self, request: StopRequest) -> tuple[float, dict[str, float]]:
        """Returns loss and scores of the model that would be saved, every sample counted once."""
        self.session.share_buffers(self.learner.model)
        self.session.share_buffers(self.learner.best)
        model = self.learner.average.eval()
        keys = self.validation_batches.keys
        batches = self.validation_loader if self.rest is None else self.rest.validation_batches(keys)
        losses = torch.zeros((), device=self.session.device)
        sums = self.objective.no_sums().to(self.session.device)
        shown = self.session.is_main
        with torch.inference_mode(), ProgressBar("validating", steps=len(keys), shown=shown) as bar:
            for number, (pictures, targets, _) in enumerate(batches):
                images = network_input(pictures, self.session.device, channels_last=self.options.channels_last)
                with autocast(self.session.device, self.options.precision):
                    loss, part = self.objective.validation(
                        model, images, targets.to(self.session.device, non_blocking=True)
                    )
                losses += loss.float()
                sums += part
                bar.advance()
                if number < self.common_batches and self._any(request.is_made()):  # which all processes have
                    self._save()
                    self._stop(request)
        scores = self.objective.scores(self.session.sum(sums).cpu(), self.validation_count)
        return self.session.sum(losses).item() / self.validation_count, scores

    def _end_epoch(self, loss: float, scores: dict[str, float]) -> None:
        progress = self.progress
        row = epoch_row(
            progress,
            steps=self.steps_per_epoch,
            policy=self.encoder.unfreeze_policy,
            learning_rate=max(group["lr"] for group in self.learner.optimizer.param_groups),
            measure=self.objective.training_measure,
            loss=loss,
            scores=scores,
        )
        score = next(iter(scores.values()), 0.0)
        best = (score, -loss) > (progress.best_accuracy, -progress.best_loss)
        if best:
            progress.best_epoch, progress.best_accuracy, progress.best_loss = progress.epoch, score, loss
        progress.history.append(row)
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, [0.0] * 4
        if self.session.is_main:
            if best:
                self.save_model(self.learner.best)
            write_rows(self.run_directory / "metrics.csv", progress.history)
            self.after_epoch(row)
        self._save()

    def _has_lost_patience(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.progress.epoch - 1 - self.progress.best_epoch >= patience

    def _save(self) -> None:
        if self.session.is_main:
            state = {**self.learner.state(), "identity": self.identity, "progress": asdict(self.progress)}
            save_checkpoint(self.run_directory, state, resume_from=self.resume_from)

    def _stop(self, request: StopRequest) -> NoReturn:
        exit_code = 128 + (request.signal_number or signal.SIGTERM)
        if not self.session.is_main:
            raise SystemExit(exit_code)  # one message is enough
        raise TrainingInterrupted(
            f"stopped and saved in epoch {self.progress.epoch + 1}, after {self.progress.step} of "
            f"{self.steps_per_epoch} steps. Go on with: {self.go_on}",
            exit_code,
        )

    def _any(self, flag: bool) -> bool:
        """Whether a flag is up in any process; all of them get the same answer."""
        return flag if self.session.processes == 1 else bool(self.session.sum(torch.tensor(float(flag))).item())

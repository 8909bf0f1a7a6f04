"""The training loop: epochs of optimizer steps, validation, best model, exact resumption."""

from __future__ import annotations

import contextlib
import itertools
import math
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vggtransfer.data.loader import Batches, ordered_batches, picture_loader, stop_workers, to_unit_range
from vggtransfer.encoder.precision import autocast
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import TrainingError
from vggtransfer.training.checkpoint import CHECKPOINT_FILE, save_checkpoint
from vggtransfer.training.contract import EpochRow, FitOptions, Objective, Progress
from vggtransfer.training.interruption import StopRequest, TrainingInterrupted, stop_requests
from vggtransfer.training.optimizer import build_optimizer, carry_state, parameter_groups
from vggtransfer.training.progress_bar import EpochBar
from vggtransfer.training.run_directory import write_rows
from vggtransfer.training.sampling import batch_geometry, epoch_order, epoch_passes, keyed_seed
from vggtransfer.training.schedule import learning_rate_factor, stage_at
from vggtransfer.training.session import Session


class Fit:
    """One training run.

    Args:
        model: The whole model, on the CPU, with its starting weights.
        encoder: The VGGEncoder inside it, to which the freezing policies apply.
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
        pretrained_layers: Parameters outside the encoder that train at the backbone's rate, by layer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder: VGGEncoder,
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
        pretrained_layers: Mapping[str, tuple[nn.Parameter, ...]] = MappingProxyType({}),
    ) -> None:
        self.options, self.session, self.run_directory = options, session, run
        self.encoder, self.objective = encoder, objective
        self.save_model, self.after_epoch, self.identity = save_model, after_epoch, identity
        self.sample_weights, self.pretrained_layers = sample_weights, pretrained_layers
        self.train_count, self.validation_count = len(train), len(validation)  # type: ignore[arg-type]
        self.pass_size, self.steps_per_epoch = batch_geometry(
            self.train_count,
            batch_size=options.batch_size,
            accumulate=options.accumulate,
            processes=session.processes,
        )
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.model = model.to(session.device, memory_format=layout)  # type: ignore[call-overload]
        self.forward_model: Any = torch.compile(self.model) if options.compile else self.model
        self.ema = self._average() if options.ema else None
        self.scaler = torch.amp.GradScaler(session.device.type, enabled=options.precision == torch.float16)
        self.progress = Progress()
        pin = session.device.type == "cuda"
        self.train_batches, validation_batches = (
            Batches(),
            Batches(
                ordered_batches(self.validation_count, self.pass_size, rank=session.rank, processes=session.processes)
            ),
        )
        self.train_loader = picture_loader(train, self.train_batches, workers=options.workers, pin_memory=pin)
        self.validation_loader = picture_loader(validation, validation_batches, workers=options.workers, pin_memory=pin)
        self._enter_stage(options.stages[0].policy)

    def resume(self, state: dict[str, Any]) -> None:
        """Takes up the run where a checkpoint left it.

        Raises:
            TrainingError: It is the checkpoint of a run on other data or of another model.
        """
        for name, value in self.identity.items():
            if state["identity"].get(name) != value:
                raise TrainingError(
                    f"--resume {self.run_directory}: {name} has changed since the run began "
                    f"({state['identity'].get(name)} then, {value} now); restore it or start a new run"
                )
        self.encoder.origin, self.encoder.digest = state["origin"]
        self.encoder.unfreeze(state["policy"])
        self.optimizer = self._optimizer()
        rates = [group["base_lr"] for group in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["base_lr"] = rate  # may have been given anew
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.progress = Progress(**state["progress"])
        if self.options.epochs < self.progress.epoch:
            raise TrainingError(
                f"--resume {self.run_directory}: {self.progress.epoch} epochs are already done, --epochs "
                f"{self.options.epochs} is fewer"
            )
        self.wrapped = self.session.wrap(self.forward_model)

    def run(self) -> Progress:
        """Trains to the last epoch and returns what was reached.

        Raises:
            TrainingError: The loss or a gradient is not finite; the last checkpoint stays usable.
            TrainingInterrupted: A signal asked to stop; the state has been saved.
        """
        if self.progress == Progress():
            self._save()
        try:
            with stop_requests() as request:
                while self.progress.epoch < self.options.epochs and not self._has_lost_patience():
                    policy = stage_at(self.options.stages, self.progress.epoch).policy
                    if policy != self.encoder.unfreeze_policy:
                        self._enter_stage(policy)
                    self._train_epoch(request)
                    self._end_epoch(*self._validate(request))
        finally:
            stop_workers(self.train_loader)
            stop_workers(self.validation_loader)
        return self.progress

    def _enter_stage(self, policy: str) -> None:
        previous = getattr(self, "optimizer", None)
        self.encoder.unfreeze(policy)
        self.optimizer = self._optimizer()
        if previous is not None:
            carry_state(previous, self.optimizer)
        self.wrapped = self.session.wrap(self.forward_model)

    def _average(self) -> Any:
        from timm.utils.model_ema import ModelEmaV3  # a second to import; few runs need it

        return ModelEmaV3(self.model, decay=self.options.ema, use_warmup=True)

    def _optimizer(self) -> torch.optim.Optimizer:
        options = self.options
        groups = parameter_groups(
            self.model,
            self.encoder,
            learning_rate=options.learning_rate,
            backbone_learning_rate=options.backbone_learning_rate,
            layer_decay=options.layer_decay,
            weight_decay=options.weight_decay,
            pretrained_head=itertools.chain.from_iterable(self.pretrained_layers.values()),
        )
        return build_optimizer(options.optimizer, groups, momentum=options.momentum)

    def _train_epoch(self, request: StopRequest) -> None:
        progress, options = self.progress, self.options
        self.model.train()
        passes = epoch_passes(
            epoch_order(self.train_count, seed=options.seed, epoch=progress.epoch, weights=self.sample_weights),
            epoch=progress.epoch,
            size=self.pass_size,
            rank=self.session.rank,
            processes=self.session.processes,
        )
        self.train_batches.keys = passes[progress.step * options.accumulate : self.steps_per_epoch * options.accumulate]
        batches = iter(self.train_loader)
        title = f"epoch {progress.epoch + 1}/{options.epochs}"
        last_saved = time.monotonic()
        with EpochBar(title, steps=self.steps_per_epoch, done=progress.step, shown=self.session.is_main) as bar:
            while progress.step < self.steps_per_epoch:
                began = time.monotonic()
                overdue = began - last_saved > 60 * options.checkpoint_minutes
                loss, stop, save = self._step(batches, request.signal_number is not None, overdue)
                progress.step += 1
                progress.sums[3] += time.monotonic() - began
                _, right, seen, seconds = progress.sums
                bar.advance(loss=loss, accuracy=right / seen, rate=seen / seconds)
                if stop or save:
                    self._save()
                    last_saved = time.monotonic()
                if stop:
                    self._stop(request)

    def _step(self, batches: Iterator[list[Tensor]], *flags: bool) -> tuple[float, ...]:
        """One optimizer step; returns its mean loss, and how many processes raised each of the flags.

        Everything the processes must agree on travels together: one reduction and one synchronisation a step.
        """
        options, progress, device = self.options, self.progress, self.session.device
        # Dropout and mixup draw from here; keyed by step, so that a resumed run draws the same.
        torch.manual_seed(keyed_seed("step", options.seed, progress.epoch, progress.step, self.session.rank))
        rate = learning_rate_factor(
            progress.epoch * self.steps_per_epoch + progress.step,
            total=options.epochs * self.steps_per_epoch,
            warmup=round(options.warmup_epochs * self.steps_per_epoch),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(2, device=device)
        for number in range(1, options.accumulate + 1):
            pictures, targets, _ = next(batches)
            images = to_unit_range(pictures, device, channels_last=options.channels_last)
            averaging = number == options.accumulate
            with contextlib.nullcontext() if averaging else self.session.without_averaging(self.wrapped):
                with autocast(device, options.precision):
                    loss, right = self.objective.training(self.wrapped, images, targets.to(device, non_blocking=True))
                self.scaler.scale(loss / options.accumulate).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach().float() * len(images), right])
        norm = self._gradient_norm()
        told = torch.tensor([self.pass_size * options.accumulate, *flags], dtype=torch.float32).to(device)
        loss_sum, right_sum, seen, norm_sum, *raised = self.session.sum(
            torch.cat([sums, told[:1], norm.float().reshape(1), told[1:]])
        ).tolist()
        if not math.isfinite(loss_sum):
            self._refuse(f"the loss is {loss_sum / seen}")
        # With float16 an overflow is routine: the scaler skips the step and lowers its scale.
        if not math.isfinite(norm_sum) and not self.scaler.is_enabled():
            self._refuse(f"the gradient norm is {norm_sum}")
        self._update(norm)
        for place, value in enumerate((loss_sum, right_sum, seen)):
            progress.sums[place] += value
        return (loss_sum / seen, *raised)

    def _gradient_norm(self) -> Tensor:
        self.scaler.unscale_(self.optimizer)
        return torch.nn.utils.get_total_norm(
            [parameter.grad for parameter in self._trained() if parameter.grad is not None]
        )

    def _update(self, norm: Tensor) -> None:
        if self.options.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._trained(), self.options.gradient_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=self.progress.epoch * self.steps_per_epoch + self.progress.step)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _validate(self, request: StopRequest) -> tuple[float, float]:
        """Returns (loss, accuracy) of the model that would be saved, every sample counted once."""
        saved = self.model if self.ema is None else self.ema.module
        self.session.share_buffers(self.model)
        self.session.share_buffers(saved)
        model = self.forward_model if self.ema is None else saved
        model.eval()
        sums = torch.zeros(2, device=self.session.device)
        common = self.validation_count // (self.pass_size * self.session.processes)  # batches that all processes have
        with torch.inference_mode():
            for number, (pictures, targets, _) in enumerate(self.validation_loader):
                images = to_unit_range(pictures, self.session.device, channels_last=self.options.channels_last)
                with autocast(self.session.device, self.options.precision):
                    loss, right = self.objective.validation(
                        model, images, targets.to(self.session.device, non_blocking=True)
                    )
                sums += torch.stack([loss.float(), right])
                if number < common and self._any(request.signal_number is not None):
                    self._save()
                    self._stop(request)
        loss_sum, right_sum = self.session.sum(sums).tolist()
        return loss_sum / self.validation_count, right_sum / self.validation_count

    def _end_epoch(self, loss: float, accuracy: float) -> None:
        progress = self.progress
        total, right, seen, seconds = progress.sums
        row: EpochRow = {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * self.steps_per_epoch,
            "unfreeze": self.encoder.unfreeze_policy,
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            "train_loss": total / seen,
            "train_accuracy": right / seen,
            "val_loss": loss,
            "val_accuracy": accuracy,
            "seconds": round(seconds, 2),
            "images_per_second": round(seen / seconds, 1),
        }
        best = (accuracy, -loss) > (progress.best_accuracy, -progress.best_loss)
        if best:
            progress.best_epoch, progress.best_accuracy, progress.best_loss = progress.epoch, accuracy, loss
        progress.history.append(row)
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, [0.0] * 4
        if self.session.is_main:
            if best:
                self.save_model(self.model if self.ema is None else self.ema.module)
            write_rows(self.run_directory / "metrics.csv", progress.history)
            self.after_epoch(row)
        self._save()

    def _has_lost_patience(self) -> bool:
        patience = self.options.patience
        return patience is not None and self.progress.epoch - 1 - self.progress.best_epoch >= patience

    def _save(self) -> None:
        if self.session.is_main:
            state = {
                "identity": self.identity,
                "pretrained_layers": list(self.pretrained_layers),
                "policy": self.encoder.unfreeze_policy,
                "origin": [self.encoder.origin, self.encoder.digest],
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "ema": None if self.ema is None else self.ema.module.state_dict(),
                "progress": asdict(self.progress),
            }
            save_checkpoint(self.run_directory, state)

    def _stop(self, request: StopRequest) -> NoReturn:
        exit_code = 128 + (request.signal_number or signal.SIGTERM)
        if not self.session.is_main:
            raise SystemExit(exit_code)  # one message is enough
        run = shlex.quote(str(self.run_directory))
        raise TrainingInterrupted(
            f"stopped and saved in epoch {self.progress.epoch + 1}, after {self.progress.step} of "
            f"{self.steps_per_epoch} steps. Go on with: vggtransfer finetune --resume {run}",
            exit_code,
        )

    def _refuse(self, what: str) -> NoReturn:
        run = shlex.quote(str(self.run_directory))
        raise TrainingError(
            f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}; stopped before it touched the "
            f"weights, and {run}/{CHECKPOINT_FILE} is as it was. Lower --lr, set --gradient-clip 1 or use "
            f"--precision fp32: in a new run, or with --resume {run}"
        )

    def _any(self, flag: bool) -> bool:
        """Whether a flag is up in any process; all of them get the same answer."""
        return flag if self.session.processes == 1 else bool(self.session.sum(torch.tensor(float(flag))).item())

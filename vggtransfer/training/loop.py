"""The training loop: epochs of optimizer steps, validation, best model, exact resumption."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vggtransfer.data.loader import Batches, ordered_batches, picture_loader, to_unit_range
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import TrainingError
from vggtransfer.training.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
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
        pretrained_head: Parameters outside the encoder that train at the backbone's rate.
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
        pretrained_head: tuple[nn.Parameter, ...] = (),
    ) -> None:
        self.options, self.session, self.run_directory = options, session, run
        self.encoder, self.objective = encoder, objective
        self.save_model, self.after_epoch, self.identity = save_model, after_epoch, identity
        self.sample_weights, self.pretrained_head = sample_weights, pretrained_head
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

    def resume(self) -> None:
        """Takes up the run where its checkpoint left it.

        Raises:
            TrainingError: No usable checkpoint, or one of a run on other data or another model.
        """
        state = load_checkpoint(self.run_directory)
        for name, value in self.identity.items():
            if state["identity"].get(name) != value:
                raise TrainingError(
                    f"--resume {self.run_directory}: {name} has changed since the run began "
                    f"({state['identity'].get(name)} then, {value} now); restore it or start a new run"
                )
        self.encoder.origin, self.encoder.digest = state["origin"]
        self.encoder.unfreeze(state["policy"])
        self.optimizer = self._optimizer()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.progress = Progress(**state["progress"])
        if not self.session.is_main:
            self.progress.sums = [0.0] * 4
        self.wrapped = self.session.wrap(self.forward_model)

    def run(self) -> Progress:
        """Trains to the last epoch and returns what was reached.

        Raises:
            TrainingError: The loss or a gradient is not finite; the last checkpoint stays usable.
            TrainingInterrupted: A signal asked to stop; the state has been saved.
        """
        with stop_requests() as request:
            while self.progress.epoch < self.options.epochs and not self._has_lost_patience():
                policy = stage_at(self.options.stages, self.progress.epoch).policy
                if policy != self.encoder.unfreeze_policy:
                    self._enter_stage(policy)
                self._train_epoch(request)
                self._end_epoch(*self._validate())
                self._stop_if(self._agree(request.signal_number is not None)[0], request)
        del self.train_loader, self.validation_loader  # ends their worker processes
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
            pretrained_head=self.pretrained_head,
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
                loss = self._step([next(batches) for _ in range(options.accumulate)])
                progress.step += 1
                progress.sums[3] += time.monotonic() - began
                _, right, seen, seconds = progress.sums
                bar.advance(loss=loss, accuracy=right / seen, rate=seen * self.session.processes / seconds)
                overdue = time.monotonic() - last_saved > 60 * options.checkpoint_minutes
                stop, save = self._agree(request.signal_number is not None, overdue)
                if stop or save:
                    self._save()
                    last_saved = time.monotonic()
                    self._stop_if(stop, request)

    def _step(self, passes: list[list[Tensor]]) -> float:
        """One optimizer step; returns its mean loss."""
        options, progress = self.options, self.progress
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
        figures = torch.zeros(2, device=self.session.device)
        for number, (pictures, targets, _) in enumerate(passes, start=1):
            images = to_unit_range(pictures, self.session.device, channels_last=options.channels_last)
            averaging = number == len(passes)
            with contextlib.nullcontext() if averaging else self.session.without_averaging(self.wrapped):
                with self._autocast():
                    loss, right = self.objective.training(self.wrapped, images, targets.to(self.session.device))
                self.scaler.scale(loss / len(passes)).backward()  # type: ignore[no-untyped-call]
            figures += torch.stack([loss.detach().float() * len(images), right])
        loss_sum, right_count = figures.tolist()
        seen = sum(len(pictures) for pictures, _, _ in passes)
        broken = self._agree(not math.isfinite(loss_sum))[0]
        self._require_finite(not broken, f"the loss is {loss_sum / seen}")
        for place, value in enumerate((loss_sum, right_count, seen)):
            progress.sums[place] += value
        self._update()
        return float(loss_sum / seen)

    def _update(self) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # With float16 an overflow is routine: the scaler skips the step and lowers its scale.
        self._require_finite(self.scaler.is_enabled() or bool(norm.isfinite()), f"the gradient norm is {float(norm)}")
        if self.options.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.options.gradient_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=self.progress.epoch * self.steps_per_epoch + self.progress.step)

    def _validate(self) -> tuple[float, float]:
        """Returns (loss, accuracy) of the model that would be saved, every sample counted once."""
        model = self.forward_model if self.ema is None else self.ema.module
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.inference_mode(), self._autocast():
            for pictures, targets, _ in self.validation_loader:
                images = to_unit_range(pictures, self.session.device, channels_last=self.options.channels_last)
                loss, right = self.objective.validation(model, images, targets.to(self.session.device))
                sums += torch.tensor([float(loss), float(right)], dtype=torch.float64)
        loss_sum, right_sum = (self._total(sums) / self.validation_count).tolist()
        return loss_sum, right_sum

    def _end_epoch(self, loss: float, accuracy: float) -> None:
        progress = self.progress
        totals = self._total(torch.tensor(progress.sums, dtype=torch.float64)).tolist()
        seconds = totals[3] / self.session.processes
        row: EpochRow = {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * self.steps_per_epoch,
            "unfreeze": self.encoder.unfreeze_policy,
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            "train_loss": totals[0] / totals[2],
            "train_accuracy": totals[1] / totals[2],
            "val_loss": loss,
            "val_accuracy": accuracy,
            "seconds": round(seconds, 2),
            "images_per_second": round(totals[2] / seconds, 1),
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
        sums = self._total(torch.tensor(self.progress.sums, dtype=torch.float64)).tolist()
        if self.session.is_main:
            state = {
                "identity": self.identity,
                "policy": self.encoder.unfreeze_policy,
                "origin": [self.encoder.origin, self.encoder.digest],
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "ema": None if self.ema is None else self.ema.module.state_dict(),
                "progress": {**asdict(self.progress), "sums": sums},
            }
            save_checkpoint(self.run_directory, state)

    def _stop_if(self, stop: int, request: StopRequest) -> None:
        if stop:
            raise TrainingInterrupted(
                f"stopped and saved in epoch {self.progress.epoch + 1}, after {self.progress.step} of "
                f"{self.steps_per_epoch} steps. Go on with: vggtransfer finetune --resume {self.run_directory}",
                128 + (request.signal_number or 15),
            )

    def _require_finite(self, finite: bool, what: str) -> None:
        if finite:
            return
        path = self.run_directory / CHECKPOINT_FILE
        saved = f"; the state before is in {path}" if path.is_file() else ""
        raise TrainingError(
            f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}; stopped before it touched the "
            f"weights{saved}. Lower --lr, set --gradient-clip 1 or use --precision fp32"
        )

    def _agree(self, *flags: bool) -> list[int]:
        """How many processes raised each flag; all of them act on the same answer."""
        if self.session.processes == 1:
            return [int(flag) for flag in flags]
        return [int(count) for count in self.session.sum(torch.tensor(flags, dtype=torch.int32)).tolist()]

    def _total(self, sums: Tensor) -> Tensor:
        return self.session.sum(sums).cpu()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.session.device.type, self.options.precision, enabled=self.options.precision != torch.float32
        )

"""What learns, one optimizer step at a time: model, optimizer, loss scale and moving average."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from vggtransfer.data.loader import network_input
from vggtransfer.encoder.precision import autocast
from vggtransfer.training.contract import Backbone, FitOptions, Objective, Rest
from vggtransfer.training.optimizer import build_optimizer, carry_state, parameter_groups
from vggtransfer.training.sampling import keyed_seed
from vggtransfer.training.schedule import learning_rate_factor
from vggtransfer.training.session import Session


class NotFiniteError(ArithmeticError):
    """The loss or the gradient of a step is NaN or infinite; the weights have not been touched."""


class StepResult(NamedTuple):
    """Sums over the pictures of one step, in all processes together, and how many processes raised each flag."""

    loss: float
    measured: float
    seen: float
    flags: list[float]


class Learner:
    """A model with all that changes it.

    Args:
        model: The whole model; moved to the session's device.
        encoder: Its backbone, a VGGEncoder for example, to which the freezing policies apply.
        objective: What to minimise.
        options: How to train.
        session: The processes that train.
        steps_per_epoch: Optimizer steps.
        pretrained_layers: Parameters outside the encoder that train at the backbone's rate, by layer.

    Attributes:
        model: The plain model, whose weights count.
        part: What of it is fed: the model, or the layers behind its frozen part.
        average: The same of the moving average; of the model if there is none.
        optimizer: Of the present freezing policy.
        ema: Moving average of the model, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder: Backbone,
        objective: Objective,
        options: FitOptions,
        session: Session,
        steps_per_epoch: int,
        pretrained_layers: Mapping[str, tuple[nn.Parameter, ...]],
    ) -> None:
        self.encoder, self.objective, self.options, self.session = encoder, objective, options, session
        self.steps_per_epoch, self.pretrained_layers = steps_per_epoch, pretrained_layers
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.model = model.to(session.device, memory_format=layout)  # type: ignore[call-overload]
        self.ema = self._average() if options.ema else None
        self.scaler = torch.amp.GradScaler(session.device.type, enabled=options.precision == torch.float16)
        encoder.unfreeze(options.stages[0].value)
        self.optimizer = self._optimizer()

    @property
    def best(self) -> nn.Module:
        """What is validated and saved: the moving average if there is one."""
        return self.model if self.ema is None else self.ema.module  # type: ignore[no-any-return]

    def unfreeze(self, policy: str) -> None:
        """Changes what trains; momenta of what goes on training are kept."""
        previous = self.optimizer
        self.encoder.unfreeze(policy)
        self.optimizer = self._optimizer()
        carry_state(previous, self.optimizer)

    def feed(self, rest: Rest | None) -> None:
        """Chooses what the batches to come are for: the layers that are left, or the whole model.

        To be called before the first step, and after the set of trainable parameters has changed.
        """
        part = self.model if rest is None else rest.rest_of(self.model)
        self.part = cast(nn.Module, torch.compile(part)) if self.options.compile else part
        if self.ema is None:
            self.average = self.part
        else:
            self.average = self.best if rest is None else rest.rest_of(self.best)
        self.wrapped = self.session.wrap(self.part)

    def step(self, batches: Iterator[list[Tensor]], *, epoch: int, number: int, flags: tuple[bool, ...]) -> StepResult:
        """Makes one optimizer step, the `number`-th of its epoch.

        Everything the processes must agree on travels together: one reduction and one synchronisation a step.

        Args:
            batches: (pictures uint8, targets, indices) of this process; `options.accumulate` of them are taken.
            epoch: Epoch, from 0.
            number: Step in the epoch, from 0.
            flags: This process's, to be added up over all of them.

        Raises:
            NotFiniteError: In all processes, if the loss or the gradient of any is NaN or infinite.
        """
        options, device = self.options, self.session.device
        # Dropout and mixup draw from here; keyed by step, so that a resumed run draws the same.
        torch.manual_seed(keyed_seed("step", options.seed, epoch, number, self.session.rank))
        done = epoch * self.steps_per_epoch + number
        rate = learning_rate_factor(
            done,
            total=options.epochs * self.steps_per_epoch,
            warmup=round(options.warmup_epochs * self.steps_per_epoch),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.cat([self._gradients(batches), torch.tensor(flags, dtype=torch.float32).to(device)])
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._trained() if p.grad is not None])
        norm_sum, loss, measured, seen, *raised = self.session.sum(torch.cat([norm.float().reshape(1), sums])).tolist()
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss / seen}")
        # With float16 an overflow is routine: the scaler skips the step and lowers its scale.
        if not math.isfinite(norm_sum) and not self.scaler.is_enabled():
            raise NotFiniteError(f"the gradient norm is {norm_sum}")
        if options.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self._trained(), options.gradient_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=done)
        return StepResult(loss, measured, seen, raised)

    def _gradients(self, batches: Iterator[list[Tensor]]) -> Tensor:
        """Adds up the gradients of a step's passes; returns the sums of loss, measure and pictures, float [3]."""
        options, device = self.options, self.session.device
        sums = torch.zeros(3, device=device)
        for number in range(1, options.accumulate + 1):
            pictures, targets, _ = next(batches)
            images = network_input(pictures, device, channels_last=options.channels_last)
            averaging = number == options.accumulate
            with contextlib.nullcontext() if averaging else self.session.without_averaging(self.wrapped):
                with autocast(device, options.precision):
                    loss, measured = self.objective.training(
                        self.wrapped, images, targets.to(device, non_blocking=True)
                    )
                self.scaler.scale(loss / options.accumulate).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([loss.detach().float() * len(images), measured, torch.full_like(sums[2], len(images))])
        return sums

    def state(self) -> dict[str, Any]:
        """Everything that `load_state` needs, tensors and plain values."""
        return {
            "policy": self.encoder.unfreeze_policy,
            "origin": [self.encoder.origin, self.encoder.digest],
            "pretrained_layers": list(self.pretrained_layers),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned; learning rates come from the options, which may have changed."""
        self.encoder.origin, self.encoder.digest = state["origin"]
        self.encoder.unfreeze(state["policy"])
        self.optimizer = self._optimizer()
        rates = [group["base_lr"] for group in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["base_lr"] = rate
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])

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

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

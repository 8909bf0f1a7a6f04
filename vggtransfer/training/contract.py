"""What a job hands to the training loop, and what the loop keeps of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vggtransfer.errors import TrainingError
from vggtransfer.training.optimizer_names import OptimizerName
from vggtransfer.training.schedule import Stage

EpochRow = dict[str, float | int | str]


@dataclass(frozen=True)
class FitOptions:
    """How to train; the options of the commands, resolved.

    `batch_size` counts the pictures of one pass over all processes; an optimizer step takes `accumulate` passes.
    """

    epochs: int
    stages: tuple[Stage, ...]
    batch_size: int
    accumulate: int
    optimizer: OptimizerName
    learning_rate: float
    backbone_learning_rate: float
    layer_decay: float
    weight_decay: float
    momentum: float
    warmup_epochs: float
    gradient_clip: float | None
    ema: float
    patience: int | None
    precision: torch.dtype
    channels_last: bool
    compile: bool
    workers: int
    seed: int
    checkpoint_minutes: float


class Backbone(Protocol):
    """The part of a model that freezing policies and the backbone's learning rate apply to; the rest is the head.

    Attributes:
        unfreeze_policy: The policy in force.
        origin: Where the weights came from, in words.
        digest: `weights_digest` (SHA-256) of the tensors as loaded; None for random ones.
    """

    unfreeze_policy: str
    origin: str
    digest: str | None

    def unfreeze(self, policy: str, /) -> Any:
        """Replaces the freezing policy.

        Raises:
            OptionError: A policy that this backbone does not have.
        """
        ...

    def blocks(self) -> Sequence[Sequence[nn.Parameter]]:
        """Returns the parameters of each block, frozen or not, from the first block to the last."""
        ...


class DivergedError(TrainingError):
    """The loss or a gradient is not finite, so that training cannot go on; the weights have not been touched."""


class Objective(Protocol):
    """What a job wants minimised."""

    def training(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (mean loss of the batch, number of right answers)."""
        ...

    def validation(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (sum of the losses of the batch, number of right answers)."""
        ...


@dataclass
class Progress:
    """How far a run has come; plain values, kept in the checkpoint.

    `step` counts the optimizer steps done in `epoch`; `sums` holds loss, right answers and pictures of them, over all
    processes, and seconds.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    best_epoch: int = -1
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    history: list[EpochRow] = field(default_factory=list)

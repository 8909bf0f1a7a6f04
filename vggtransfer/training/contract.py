"""What a job hands to the training loop, and what the loop keeps of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vggtransfer.data.loader import Key
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


class Rest(Protocol):
    """What is left to train of a model whose frozen part has been computed already."""

    def rest_of(self, model: Any, /) -> nn.Module:
        """The layers of a model behind its frozen part; the model's own, not copies."""
        ...

    def train_batches(self, batches: Sequence[list[Key]], /) -> Iterator[list[Tensor]]:
        """Yields (input of these layers, targets, indices) for batches of (epoch, index)."""
        ...

    def validation_batches(self, batches: Sequence[list[Key]], /) -> Iterator[list[Tensor]]:
        """The same for validation."""
        ...


class FrozenPart(Protocol):
    """Spares the loop what a frozen part would compute again and again."""

    def stage(self, epoch: int, /) -> int:
        """Number of the stage that an epoch (from 0) belongs to; `enter` is called at the beginning of each."""
        ...

    def enter(self, epoch: int, model: Any, /, *, average: Any, stopped: Callable[[], bool]) -> Rest | None:
        """Makes ready for the epochs to come; None if they take the whole model and pictures.

        Args:
            epoch: From 0.
            model: As it trains now.
            average: Its moving average, if that is what is validated.
            stopped: Whether the run is to end.
        """
        ...


class DivergedError(TrainingError):
    """The loss or a gradient is not finite, so that training cannot go on; the weights have not been touched."""


@dataclass(frozen=True)
class Measure:
    """What a job tells beside the loss of its training: `accuracy` becomes the column `train_accuracy`.

    Attributes:
        name: In words joined by underscores.
        format: How a value is printed, as in `format(value, ".1%")`.
    """

    name: str
    format: str = ".1%"

    def shown(self, value: float) -> str:
        """Returns `pixel accuracy 84.4%`."""
        return f"{self.name.replace('_', ' ')} {value:{self.format}}"


class Objective(Protocol):
    """What a job wants minimised, and how it tells a better model from a worse one.

    Attributes:
        training_measure: What `training` adds up beside the loss; None if nothing is told of it.
    """

    training_measure: Measure | None

    def training(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (mean loss of the batch, sum over its pictures of what the measure averages, float scalar)."""
        ...

    def validation(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (sum over the pictures of their losses, sums that `scores` needs, like `no_sums`)."""
        ...

    def no_sums(self) -> Tensor:
        """Zeros that the second result of `validation` is added to, over all batches and processes, on the CPU."""
        ...

    def scores(self, sums: Tensor, pictures: int) -> dict[str, float]:
        """Makes scores of the sums over all validation pictures, on the CPU; each becomes a column `val_NAME`.

        The higher the first score, the better the model; equal ones, or none at all, leave it to the loss. None may be
        NaN.
        """
        ...


@dataclass
class Progress:
    """How far a run has come; plain values, kept in the checkpoint.

    `step` counts the optimizer steps done in `epoch`; `sums` holds loss, measure and pictures of them, over all
    processes, and seconds. `best_accuracy` is the best first score, whatever it measures.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    best_epoch: int = -1
    best_accuracy: float = -math.inf
    best_loss: float = math.inf
    history: list[EpochRow] = field(default_factory=list)

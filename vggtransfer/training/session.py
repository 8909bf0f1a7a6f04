"""One process or many, CPU or GPU: what the rest of the package needs to know about it. The only user of accelerate."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from vggtransfer.encoder.precision import resolve_device
from vggtransfer.errors import OptionError, VGGTransferError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
T = TypeVar("T")


class Session:
    """The processes that train together; a single one unless started by torchrun.

    Attributes:
        device: This process's device.
        rank: This process's number, 0 to processes - 1.
        processes: How many there are.

    Raises:
        OptionError: The device does not exist.
    """

    def __init__(self, device: DeviceName = "auto") -> None:
        on_cpu = resolve_device(device).type == "cpu"
        # accelerate keeps the first device for the life of the process; a second run may ask for another one.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self._accelerator = Accelerator(
            cpu=on_cpu,  # otherwise accelerate takes several processes without GPUs for as many single ones
            mixed_precision="no",  # the training loop chooses its own
            # Others wait while the main process reads a million pictures for the first time.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
        )
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.processes: int = self._accelerator.num_processes
        if self.processes != (started := int(os.environ.get("WORLD_SIZE", "1"))):
            raise OptionError(f"{started} processes were started, but only {self.processes} can train on {self.device}")

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device and, with several processes, makes its backward average the gradients.

        Call it again after the set of trainable parameters has changed.
        """
        if self._accelerator._models:  # collecting garbage takes a while
            self._accelerator.free_memory()
        wrapped: nn.Module = self._accelerator.prepare(model)
        return wrapped

    def release(self) -> None:
        """Lets go of the last model that was wrapped, so that its memory is free for another."""
        self._accelerator.free_memory()

    def without_averaging(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """For all but the last backward of an accumulated step."""
        return self._accelerator.no_sync(wrapped) if self.processes > 1 else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Adds a tensor over all processes, on the device."""
        if self.processes == 1:
            return values
        total: Tensor = self._accelerator.reduce(values.to(self.device), reduction="sum")
        return total

    def share_buffers(self, model: nn.Module) -> None:
        """Gives every process the main process's buffers: each has normalised, and counted, pictures of its own."""
        if self.processes > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_main(self, work: Callable[[], T]) -> T:
        """Does something in the main process alone and returns its result in all of them.

        Raises:
            VGGTransferError: Raised by the work. The other processes end quietly; one message is enough.
        """
        outcome: list[T | VGGTransferError | None] = [None]
        if self.is_main:
            try:
                outcome = [work()]
            except VGGTransferError as error:
                outcome = [error]
        if self.processes > 1:
            broadcast_object_list(outcome)
        result = outcome[0]
        if isinstance(result, VGGTransferError):
            self.close()
            if self.is_main:
                raise result
            raise SystemExit(2)
        return result  # type: ignore[return-value]

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leaves the process group; all processes do so together."""
        self._accelerator.end_training()

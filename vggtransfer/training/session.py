"""One process or many, CPU or GPU: what the rest of the package needs to know about it. The only user of accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from vggtransfer.errors import OptionError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
T = TypeVar("T")


class Session:
    """The processes that train together; a single one unless started by torchrun.

    Attributes:
        device: This process's device.
        rank: This process's number, 0 to processes - 1.
        processes: How many there are.
    """

    def __init__(self, device: DeviceName = "auto") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise OptionError("--device cuda: no CUDA device is available; use --device cpu or auto")
        if device == "mps" and not torch.backends.mps.is_available():
            raise OptionError("--device mps: no Apple GPU is available; use --device cpu or auto")
        # accelerate keeps the first device for the life of the process; a second run may ask for another one.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self._accelerator = Accelerator(cpu=device == "cpu")
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.processes: int = self._accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device and, with several processes, makes its backward average the gradients.

        Call it again after the set of trainable parameters has changed.
        """
        self._accelerator.free_memory()
        wrapped: nn.Module = self._accelerator.prepare(model)
        return wrapped

    def without_averaging(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """For all but the last backward of an accumulated step."""
        return self._accelerator.no_sync(wrapped) if self.processes > 1 else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Adds a tensor over all processes."""
        if self.processes == 1:
            return values
        total: Tensor = self._accelerator.reduce(values.to(self.device), reduction="sum")
        return total

    def from_main(self, value: T) -> T:
        """The main process's value, in every process."""
        holder = [value]
        if self.processes > 1:
            broadcast_object_list(holder)
        return holder[0]

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Lets the main process run the block before the others, which then find its results in the cache."""
        with self._accelerator.main_process_first():
            yield

    def close(self) -> None:
        """Leaves the process group; the process may start another session only if it was alone."""
        self._accelerator.end_training()

"""What a training step computes twice instead of keeping it, because it costs little beside its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def convolved_activation(x: Tensor, norm: nn.Module, convolution: Callable[[Tensor], Tensor]) -> Tensor:
    """Normalises, applies ReLU and convolves, and keeps x alone for the backward pass.

    BatchNorm needs x there, and the convolution the activation, which is computed from x a second time when its turn
    comes (Pleiss et al. 2017, "Memory-Efficient Implementation of DenseNets").

    Args:
        x: [batch, channels, height, width].
        norm: BatchNorm, whose running statistics take account of x once; or `nn.Identity`, beside which nothing keeps
            x, so that nothing is computed twice.
        convolution: What comes after the activation.
    """

    def run(x: Tensor) -> Tensor:
        return convolution(F.relu_(norm(x)))

    return run(x) if isinstance(norm, nn.Identity) else recomputed(run, x, around=lambda: _statistics_kept(norm))


def recomputed(
    function: Callable[..., Tensor],
    *arguments: Tensor | None,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Tensor:
    """Calls a function that ends with a convolution, and keeps its arguments alone for the backward pass.

    There it runs once more, up to the convolution, whose inputs are all that is missing: checkpointing stops with them.

    Args:
        function: From the arguments to the result.
        arguments: Tensors.
        around: Makes what is to be entered when it runs again.
    """
    if torch.compiler.is_compiling():  # compilers choose by themselves what to keep
        return function(*arguments)
    result: Tensor = checkpoint(
        function,
        *arguments,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), around()),
    )
    return result


@contextmanager
def _statistics_kept(norm: nn.Module) -> Iterator[None]:
    before = [buffer.clone() for buffer in norm.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(norm.buffers(), before, strict=True):
            buffer.copy_(value)

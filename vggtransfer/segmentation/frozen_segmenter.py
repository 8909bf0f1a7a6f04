"""A segmentation network that only answers: BatchNorm folded away, weights converted once, taps let go of at once."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.precision import prefers_channels_last
from vggtransfer.features.frozen_trunk import Convolution, FrozenTrunk, joined, pictures_at_once
from vggtransfer.segmentation.segmenter import Decoder, Segmenter, padded
from vggtransfer.segmentation.unet_decoder import ConvolutionBlock, JoiningBlock, UNetStage
from vggtransfer.segmentation.upsampling import upsampling_kernel


class FrozenSegmenter:
    """What a network answers in evaluation mode, faster and with less memory; see `FrozenTrunk`.

    What the decoder keeps of a tap is computed as soon as the tap is there, so that no more than one is held. On a CPU
    large batches are computed in parts that stay in its cache.

    Args:
        model: The network; it is copied and left as it is. What happens to it afterwards is not seen here.
        device: Where to compute.
        compute_type: `torch.float32`, `torch.bfloat16` or `torch.float16`; normalisation is in float32 in any case.

    Attributes:
        device: Where it computes.
    """

    def __init__(self, model: Segmenter, *, device: torch.device, compute_type: torch.dtype) -> None:
        encoder = model.encoder
        self.device = device
        self._trunk = FrozenTrunk(encoder, encoder.layers, device=device, compute_type=compute_type)
        layout = torch.channels_last if prefers_channels_last(device) else torch.contiguous_format
        decoder = folded_decoder(model.decoder).to(device, compute_type, memory_format=layout)  # type: ignore[call-overload]
        self._decoder = cast(Decoder, decoder)
        self._shape = model.input_shape()
        self._multiple, self._shift = model.multiple, model.shift
        self._width = encoder.architecture.layers[0].out_channels
        self._value_bytes = compute_type.itemsize

    def __call__(self, pictures: Tensor) -> Tensor:
        """Returns logits [batch, classes, height, width] in float32.

        Args:
            pictures: [batch, channels, height, width], uint8, or float in [0, 1]; on any device.

        Raises:
            InputError: Pictures of the wrong rank or channels.
        """
        self._shape.check(pictures)
        with torch.inference_mode():
            return joined([self._run(part) for part in torch.split(pictures, self._at_once(pictures))])

    def _run(self, pictures: Tensor) -> Tensor:
        x = padded(self._trunk.normalised(pictures), self._multiple, shift=self._shift)
        kept: list[Tensor] = []
        for name, step in self._trunk.steps:
            x = step(x)
            if name in self._trunk.layers:
                kept.append(self._decoder.keep(len(kept), x))
        del x
        return self._decoder.join(kept)[..., : pictures.shape[2], : pictures.shape[3]].float()

    def _at_once(self, pictures: Tensor) -> int:
        if self.device.type != "cpu":
            return max(1, len(pictures))
        return pictures_at_once(pictures, width=self._width, value_bytes=self._value_bytes)


class FrozenJoin(nn.Module):
    """A `JoiningBlock` with its BatchNorm folded and the kernel of its transposed convolution worked out."""

    kernel: Tensor
    bias: Tensor
    skip: Tensor

    def __init__(self, block: JoiningBlock) -> None:
        super().__init__()
        norm = folding_norm(block.norm)
        below = Convolution(block.below, norm, relu=False)
        self.register_buffer("kernel", upsampling_kernel(below.weight).contiguous())
        self.register_buffer("bias", below.bias)
        if block.skip is not None:
            self.register_buffer("skip", Convolution(block.skip, norm, relu=False).weight)

    def of_skip(self, skip: Tensor) -> Tensor:
        return F.conv2d(skip, self.skip, padding=1)

    def forward(self, x: Tensor, of_skip: Tensor | None) -> Tensor:
        joined = F.conv_transpose2d(x, self.kernel, self.bias, stride=2, padding=1)
        return F.relu_(joined if of_skip is None else joined.add_(of_skip))


class FrozenStage(nn.Module):
    """A `UNetStage` as its two blocks, one after the other, which are then folded themselves."""

    def __init__(self, stage: UNetStage) -> None:
        super().__init__()
        self.join: nn.Module = stage.join
        self.refine: nn.Module = stage.refine

    def forward(self, x: Tensor, of_skip: Tensor | None) -> Tensor:
        refined: Tensor = self.refine(self.join(x, of_skip))
        return refined


def folded_decoder(decoder: nn.Module) -> nn.Module:
    """Copies a decoder and replaces its blocks by such that only answer."""
    copied = copy.deepcopy(decoder).eval().requires_grad_(False)
    for name, block in list(copied.named_modules()):
        if isinstance(block, UNetStage):
            copied.set_submodule(name, FrozenStage(block))
        elif isinstance(block, JoiningBlock):
            copied.set_submodule(name, FrozenJoin(block))
        elif isinstance(block, ConvolutionBlock):
            copied.set_submodule(name, Convolution(block.conv, folding_norm(block.norm), relu=True))
    return copied


def folding_norm(norm: nn.Module) -> nn.BatchNorm2d | None:
    """The BatchNorm that is to be folded, of several processes (`SyncBatchNorm`) or one, if there is any."""
    return None if isinstance(norm, nn.Identity) else cast(nn.BatchNorm2d, norm)

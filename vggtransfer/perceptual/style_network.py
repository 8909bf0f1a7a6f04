"""A network that paints any picture in one style in a single pass: Johnson et al. 2016 with instance normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vggtransfer
from vggtransfer.encoder.checkpoint_files import read_checkpoint
from vggtransfer.encoder.trunk_files import FileHeader, check_digest, read_header, weights_digest, write_weights
from vggtransfer.errors import WeightsError
from vggtransfer.perceptual.picture_training import MODEL_FILE

_KIND = "style network"
_RESIDUAL_BLOCKS = 5


class StyleNetwork(nn.Module):
    """The image transformation network of Johnson et al. 2016 (supplementary material, table 1).

    With instance normalisation instead of batch normalisation (Ulyanov et al. 2016), reflection padding, and nearest
    upsampling before convolutions instead of strided transposed ones, which leave checkerboards (Odena et al. 2016).

    Args:
        width: Channels of the first layer; 32 in the paper.
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            _Convolution(3, width, kernel_size=9),
            _Convolution(width, 2 * width, kernel_size=3, stride=2),
            _Convolution(2 * width, 4 * width, kernel_size=3, stride=2),
            *(_ResidualBlock(4 * width) for _ in range(_RESIDUAL_BLOCKS)),
            nn.Upsample(scale_factor=2),
            _Convolution(4 * width, 2 * width, kernel_size=3),
            nn.Upsample(scale_factor=2),
            _Convolution(2 * width, width, kernel_size=3),
            nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect"),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Paints pictures [batch, 3, height, width] in [0, 1], of at least 16 x 16 pixels; the result is like them."""
        height, width = images.shape[2:]
        # The encoder halves twice: sides that are no multiple of 4 are filled up at the right and below.
        filled = F.pad(images, (0, -width % 4, 0, -height % 4), mode="reflect")
        painted: Tensor = self.layers(filled - 0.5)
        # Slightly beyond black and white, so that these are no limits that gradients vanish at; clipped where written.
        return 0.5 + 0.55 * torch.tanh(painted[:, :, :height, :width].float())


class _Convolution(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, *, kernel_size: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(
                inputs,
                outputs,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                padding_mode="reflect",
                bias=False,
            ),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.ReLU(),
        )


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Convolution(channels, channels, kernel_size=3),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.layers(x)
        return x + changed


def save_style_network(model: StyleNetwork, run: Path, *, description: dict[str, Any]) -> Path:
    """Writes a network to `RUN/model.safetensors`, atomically, with how it was made; returns the path.

    Raises:
        WeightsError: The folder cannot be written or the disk is full.
    """
    tensors = model.state_dict()
    header = FileHeader(
        kind=_KIND,
        architecture="johnson2016",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        origin="trained by vggtransfer stylize --train",
        digest=weights_digest(tensors),
        more={
            "width": model.width,
            "description": description,
            "versions": {"vggtransfer": vggtransfer.__version__, "torch": torch.__version__},
        },
    )
    path = run / MODEL_FILE
    write_weights(path, tensors, header)
    return path


def load_style_network(source: Path) -> StyleNetwork:
    """Loads a network, in evaluation mode, on the CPU.

    Args:
        source: A run directory of `stylize --train`, or its `model.safetensors`.

    Raises:
        WeightsError: No such file, or a file that is no such network.
    """
    path = source / MODEL_FILE if source.is_dir() else source
    if not path.is_file():
        raise WeightsError(f"--model {source}: no {MODEL_FILE} there; give a run directory such as runs/stylize/1")
    file = read_checkpoint(path)
    header = read_header(file)
    if header is None or header.kind != _KIND:
        raise WeightsError(f"{path}: this is not a network trained by `vggtransfer stylize --train`")
    model = StyleNetwork(width=int(header.more["width"]))
    try:
        model.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: its tensors do not fit the network it describes") from error
    check_digest(file, header, weights_digest(file.tensors))
    return model.eval()

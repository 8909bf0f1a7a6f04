"""A small network that makes pictures larger: residual blocks without normalisation, on top of bicubic enlarging."""

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

_KIND = "super-resolution network"


class SuperNetwork(nn.Module):
    """EDSR in small (Lim et al. 2017, figure 3): it learns what bicubic enlarging lacks.

    Convolutions by 3 and residual blocks without normalisation; for each doubling, nearest upsampling before a
    convolution: the sub-pixel convolutions of the paper cost the same and, trained on maps of a VGG, draw a grid over
    flat surfaces (Odena et al. 2016). The result is added to the bicubic enlargement. The last layer begins at zero, so
    that an untrained network enlarges bicubically.

    Args:
        factor: 2 or 4.
        width: Channels.
        blocks: Residual blocks.
    """

    def __init__(self, *, factor: int = 4, width: int = 32, blocks: int = 8) -> None:
        super().__init__()
        self.factor, self.width, self.blocks = factor, width, blocks
        doublings = {2: 1, 4: 2}[factor]
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(_Block(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1))
        self.upsampling = nn.Sequential(
            *(
                layer
                for _ in range(doublings)
                for layer in (nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
            )
        )
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    @property
    def reach(self) -> int:
        """How many pixels away, in the small picture, a pixel can change the result at most."""
        return 2 * self.blocks + 6

    def forward(self, images: Tensor) -> Tensor:
        """From [batch, 3, height, width] in [0, 1] to [batch, 3, factor * height, factor * width], about in [0, 1]."""
        features = self.first(images - 0.5)
        detail: Tensor = self.last(self.upsampling(features + self.body(features)))
        return enlarged(images, self.factor) + detail.float()


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.layers(x)
        return x + changed


def enlarged(images: Tensor, factor: int) -> Tensor:
    """Enlarges pictures bicubically, in float32."""
    with torch.autocast(images.device.type, enabled=False):
        return F.interpolate(images.float(), scale_factor=factor, mode="bicubic", align_corners=False)


@torch.inference_mode()
def enlarge_in_tiles(model: SuperNetwork, images: Tensor, *, tile: int) -> Tensor:
    """Runs the network on tiles of `tile` pixels with as much around them as matters: the same result, less memory."""
    height, width = images.shape[2:]
    reach, factor = model.reach, model.factor
    result = images.new_empty(images.shape[0], 3, height * factor, width * factor)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            first_row, first_column = max(0, top - reach), max(0, left - reach)
            part = model(images[:, :, first_row : bottom + reach, first_column : right + reach])
            skip_rows, skip_columns = (top - first_row) * factor, (left - first_column) * factor
            rows, columns = (bottom - top) * factor, (right - left) * factor
            result[:, :, top * factor : bottom * factor, left * factor : right * factor] = part[
                :, :, skip_rows : skip_rows + rows, skip_columns : skip_columns + columns
            ]
    return result


def save_super_network(model: SuperNetwork, run: Path, *, description: dict[str, Any]) -> Path:
    """Writes a network to `RUN/model.safetensors`, atomically, with how it was made; returns the path.

    Raises:
        WeightsError: The folder cannot be written or the disk is full.
    """
    tensors = model.state_dict()
    header = FileHeader(
        kind=_KIND,
        architecture="edsr",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        origin="trained by vggtransfer superresolve",
        digest=weights_digest(tensors),
        more={
            "network": {"factor": model.factor, "width": model.width, "blocks": model.blocks},
            "description": description,
            "versions": {"vggtransfer": vggtransfer.__version__, "torch": torch.__version__},
        },
    )
    path = run / MODEL_FILE
    write_weights(path, tensors, header)
    return path


def load_super_network(source: Path) -> SuperNetwork:
    """Loads a network, in evaluation mode, on the CPU.

    Args:
        source: A run directory of `superresolve`, or its `model.safetensors`.

    Raises:
        WeightsError: No such file, or a file that is no such network.
    """
    path = source / MODEL_FILE if source.is_dir() else source
    if not path.is_file():
        raise WeightsError(f"--model {source}: no {MODEL_FILE} there; give a run directory such as runs/superresolve/1")
    file = read_checkpoint(path)
    header = read_header(file)
    if header is None or header.kind != _KIND:
        raise WeightsError(f"{path}: this is not a network trained by `vggtransfer superresolve`")
    model = SuperNetwork(**{name: int(value) for name, value in header.more["network"].items()})
    try:
        model.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: its tensors do not fit the network it describes") from error
    check_digest(file, header, weights_digest(file.tensors))
    return model.eval()

"""Segmentation networks by name, and with everything needed to use them in one safetensors file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

import vggtransfer
from vggtransfer.data.seen_size import SeenSize, parse_seen_size
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES
from vggtransfer.encoder.checkpoint_files import read_checkpoint
from vggtransfer.encoder.trunk_files import FileHeader, check_digest, read_header, trunk_digest, write_weights
from vggtransfer.errors import WeightsError
from vggtransfer.segmentation.decoder_names import DecoderName
from vggtransfer.segmentation.deeplab import DeepLabHead, VGGDeepLab
from vggtransfer.segmentation.fcn import VGGFCN, FCNHead
from vggtransfer.segmentation.mask_coding import MaskCoding
from vggtransfer.segmentation.segmenter import Segmenter
from vggtransfer.segmentation.unet import VGGUNet

MODEL_FILE = "model.safetensors"

_KIND = "segmenter"


@dataclass(frozen=True)
class DecoderOptions:
    """How a network is built on its encoder; what its kind does not know is at its default.

    Attributes:
        name: Which network.
        decoder_channels: See `VGGUNet`.
        full_resolution_skip: The same.
        normalization: The same.
        hidden_channels: See `VGGFCN` and `VGGDeepLab`.
        dropout: The same.
    """

    name: DecoderName
    decoder_channels: tuple[int, ...] | None = None
    full_resolution_skip: bool = True
    normalization: Literal["batch", "none"] = "batch"
    hidden_channels: int | None = None
    dropout: float = 0.5


@dataclass(frozen=True)
class TrainedSegmenter:
    """A network and what it was trained for.

    Attributes:
        model: The network.
        decoder: How it is built.
        coding: What masks mean to it.
        image_size: Size at which it sees pictures, as `parse_seen_size` reads it.
    """

    model: Segmenter
    decoder: DecoderOptions
    coding: MaskCoding
    image_size: str

    @property
    def seen(self) -> SeenSize:
        return parse_seen_size("image-size", self.image_size)


def build_segmenter(
    arch: str, options: DecoderOptions, *, classes: int, weights: str | None, unfreeze: str = "none"
) -> Segmenter:
    """Builds a network.

    Args:
        arch: Architecture of the encoder.
        options: What is built on it.
        classes: Number of scores per pixel.
        weights: See `VGGEncoder`.
        unfreeze: The same.

    Raises:
        OptionError: An option that cannot be used.
        WeightsError: Weights that cannot be found, verified or matched.
    """
    match options.name.partition("-"):
        case ("unet", _, _):
            return VGGUNet(
                arch,
                classes=classes,
                weights=weights,
                unfreeze=unfreeze,
                decoder_channels=options.decoder_channels,
                full_resolution_skip=options.full_resolution_skip,
                normalization=options.normalization,
            )
        case ("deeplab", _, head):
            return VGGDeepLab(
                arch,
                classes=classes,
                head=cast(DeepLabHead, head),
                weights=weights,
                unfreeze=unfreeze,
                hidden_channels=options.hidden_channels,
                dropout=options.dropout,
            )
        case _:
            return VGGFCN(
                arch,
                classes=classes,
                head=cast(FCNHead, options.name),
                weights=weights,
                unfreeze=unfreeze,
                hidden_channels=options.hidden_channels,
                dropout=options.dropout,
            )


def pretrained_layers(model: Segmenter, *, names: tuple[str, ...] | None = None) -> dict[str, tuple[nn.Parameter, ...]]:
    """Parameters of the layers behind the encoder that have pretrained weights, by layer.

    Args:
        model: The network.
        names: The layers, where they are known from elsewhere.
    """
    filled = getattr(model, "pretrained_layers", ()) if names is None else names
    return {
        name: tuple(
            parameter
            for path, module in model.decoder.named_modules()
            if path.rpartition(".")[2] == name
            for parameter in module.parameters()
        )
        for name in filled
    }


def save_segmenter(trained: TrainedSegmenter, path: Path) -> None:
    """Writes weights, architecture, decoder, classes and preprocessing to one safetensors file, atomically.

    Raises:
        WeightsError: The folder cannot be written or the disk is full.
    """
    encoder = trained.model.encoder
    tensors = trained.model.state_dict()
    header = FileHeader(
        kind=_KIND,
        architecture=encoder.architecture.name,
        mean=tuple(encoder.mean.flatten().tolist()),
        std=tuple(encoder.std.flatten().tolist()),
        origin=encoder.origin,
        digest=trunk_digest(tensors),
        more={
            "decoder": asdict(trained.decoder),
            "coding": trained.coding.as_dict(),
            "image_size": trained.image_size,
            "versions": {"vggtransfer": vggtransfer.__version__, "torch": torch.__version__},
        },
    )
    remedy = f"free space and go on with: vggtransfer segment --resume {shlex.quote(str(path.parent))}"
    write_weights(path, tensors, header, remedy=remedy)


def load_segmenter(source: str | Path) -> TrainedSegmenter:
    """Loads a network that `segment` trained, in evaluation mode, on the CPU.

    Args:
        source: A run directory of `segment`, or its `model.safetensors`.

    Raises:
        WeightsError: No such file, or a file that is not such a network.
    """
    source = Path(source).expanduser()
    path = source / MODEL_FILE if source.is_dir() else source
    if not path.is_file():
        raise WeightsError(f"--model {source}: no {MODEL_FILE} there; give a run directory such as runs/segment/1")
    file = read_checkpoint(path)
    header = read_header(file)
    if header is None or header.kind != _KIND:
        raise WeightsError(f"{path}: this is not a network trained by `vggtransfer segment`")
    decoder, coding, image_size = _content(path, header.more)
    if header.architecture not in ARCHITECTURE_NAMES or decoder.name not in get_args(DecoderName):
        what = f"{header.architecture} with {decoder.name}"
        raise WeightsError(f"{path} holds a {what}, which this version does not know; update vggtransfer")
    model = build_segmenter(header.architecture, decoder, classes=len(coding.names), weights=None)
    try:
        model.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: its tensors do not fit the {header.architecture} it describes") from error
    encoder = model.encoder
    encoder.origin, encoder.digest = header.origin, check_digest(file, header, trunk_digest(file.tensors))
    return TrainedSegmenter(model.eval(), decoder, coding, image_size)


def _content(path: Path, more: Mapping[str, Any]) -> tuple[DecoderOptions, MaskCoding, str]:
    try:
        entry = dict(more["decoder"])
        if entry["decoder_channels"] is not None:
            entry["decoder_channels"] = tuple(entry["decoder_channels"])
        return DecoderOptions(**entry), MaskCoding.from_dict(more["coding"]), str(more["image_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} has a damaged header ({error!r}); save or copy it again") from error

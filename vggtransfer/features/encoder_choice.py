"""Which encoder computes features, on which pictures, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from vggtransfer.errors import OptionError, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vggtransfer.encoder.vgg import VGGEncoder

FeaturePrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]

DEFAULT_ARCHITECTURE = "vgg16"
DEFAULT_IMAGE_SIZE = 224
_PRECISION_NAMES = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


class Trunk(Protocol):
    """What computes the taps: `FrozenTrunk`, or for int8 `QuantizedTrunk`."""

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """From uint8 [batch, 3, height, width] to one map [batch, channels, ...] per tap."""
        ...


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder that can be loaded, and the pictures it is to see.

    Attributes:
        arch: Architecture.
        weights: As for `VGGEncoder`.
        image_size: Side of the pictures in pixels.
        crop_fraction: Part of the short side that is kept; see `vggtransfer.data.transforms.evaluation_transform`.
    """

    arch: str
    weights: str | Path | None
    image_size: int
    crop_fraction: float


def choose_encoder(
    *, arch: str | None, weights: str, model: Path | None, image_size: int | None, crop_fraction: float | None
) -> EncoderChoice:
    """Completes what was asked for: from the model's own file, or with defaults.

    Raises:
        WeightsError: The model is no file of this package with the size of its pictures.
    """
    from vggtransfer.data.transforms import default_crop_fraction

    if model is not None:
        choice = _of_model(model)
        if image_size is None:
            image_size = choice.image_size
            crop_fraction = choice.crop_fraction if crop_fraction is None else crop_fraction
        arch, weights = choice.arch, str(choice.weights)
    size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    fraction = default_crop_fraction(size) if crop_fraction is None else crop_fraction
    return EncoderChoice(arch or DEFAULT_ARCHITECTURE, weights, size, fraction)


def _of_model(model: Path) -> EncoderChoice:
    from vggtransfer.encoder.checkpoint_files import read_checkpoint
    from vggtransfer.encoder.trunk_files import read_header
    from vggtransfer.encoder.weight_files import find_file

    path = find_file(model)
    header = read_header(read_checkpoint(path))
    task = {} if header is None else header.more.get("task", {})
    if header is None or not {"image_size", "crop_fraction"} <= set(task):
        raise WeightsError(
            f"--model {model}: this is no model of `vggtransfer finetune`; "
            f"give other weights with --arch and --weights {model}"
        )
    return EncoderChoice(header.architecture, path, int(task["image_size"]), float(task["crop_fraction"]))


def load_encoder(arch: str, weights: str | Path | None) -> VGGEncoder:
    """Builds the encoder in evaluation mode; random weights are those of seed 0, the same in every process.

    Raises:
        OptionError: Unknown architecture.
        WeightsError: Weights that cannot be found, verified or matched.
    """
    import torch

    from vggtransfer.encoder.trunk_files import weights_digest
    from vggtransfer.encoder.vgg import VGGEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = VGGEncoder(arch, weights=weights, unfreeze="none").eval()
    if encoder.digest is None:
        state = encoder.trunk.state_dict()
        encoder.digest = weights_digest({key: state[key] for key in state if not key.endswith("num_batches_tracked")})
        encoder.origin += ", seed 0"
    return encoder


def choose_device(device: str, precision: FeaturePrecision, *, local_rank: int) -> torch.device:
    """Chooses the device of this process: of several GPUs, that with its own number; for int8 the CPU.

    Raises:
        OptionError: There is no such device, or int8 is asked for on a GPU.
    """
    from vggtransfer.encoder.precision import resolve_device

    if precision == "int8":
        if device not in ("auto", "cpu"):
            raise OptionError(f"precision=int8 is for CPUs, not for device={device}; use bf16 or fp16 there")
        return resolve_device("cpu")
    chosen = resolve_device(device)
    if chosen.type == "cuda" and device in ("auto", "cuda"):
        import torch

        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return chosen


def resolved_precision(precision: FeaturePrecision, device: torch.device) -> FeaturePrecision:
    """What `auto` means on a device; the others are what they are.

    Raises:
        OptionError: float16 on a CPU, or int8 on one that has no instructions for it.
    """
    if precision == "int8":
        from vggtransfer.features.quantized_trunk import check_machine

        check_machine()
        return "int8"
    from vggtransfer.encoder.precision import resolve_precision

    return _PRECISION_NAMES[str(resolve_precision(precision, device))]  # type: ignore[return-value]


def compute_type(precision: FeaturePrecision) -> torch.dtype:
    """The floating-point type of a precision that is not `auto`; that of int8 is float32."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}[precision]

"""VGGEncoder: a VGG trunk that returns any of its layers, freezes any part of itself and normalises its own input."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.architectures import Architecture, Layer, architecture
from vggtransfer.encoder.freezing import parse_unfreeze
from vggtransfer.encoder.weights import load_weights
from vggtransfer.errors import InputError, OptionError

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# Interpolation and optimised pictures overshoot [0, 1] a little; the mistakes this is to catch ([0, 255], [-1, 1],
# already normalised) overshoot it by far more.
_RANGE_SLACK = 0.25


class VGGEncoder(nn.Module):
    """A VGG trunk as a feature extractor.

    Pictures go in as float tensors of shape [batch, channels, height, width], RGB, in [0, 1], of any size that
    survives the poolings. The weights' own preprocessing happens inside. Layers carry the names of Simonyan &
    Zisserman 2015: `conv1_1`, `bn1_1`, `relu1_1`, ..., `pool5`; a `conv*` tap is the value before ReLU.

    Args:
        arch: One of `vggtransfer.encoder.architectures.ARCHITECTURE_NAMES`.
        weights: `"default"` (the architecture's published weights), `"torchvision"`, `"timm"`, `"embedded"`, a path
            to a checkpoint or run directory, or None for random weights (He et al. 2015, normal, fan-out, as in
            torchvision).
        in_channels: Channels of the pictures. Pretrained first-layer weights are adapted: summed over RGB for 1
            channel; for other numbers cycled through RGB and rescaled by 3 / in_channels.
        depth: Blocks to build, 1 to 5.
        layers: Taps that `forward` returns, in this order. None is the U-Net set: the last activation of each block
            before its pooling, then the last pooling.
        unfreeze: Freezing policy, see `unfreeze()`.
        output_stride: 8 or 16 keeps the later maps at that stride: poolings beyond it move by single steps and the
            layers after them are dilated, with the same weights (the "a trous" algorithm, Chen et al. 2015).
        normalize: False if the pictures have already been normalised for these weights.

    Attributes:
        layers: Names of the taps that `forward` returns.
        out_channels: Channels of each tap.
        strides: Pixels of the picture per step of each tap.
        origin: Where the weights came from.
        digest: SHA-256 of the trunk as loaded; None for random weights.

    Raises:
        OptionError: An argument that cannot be used; the message names it.
        WeightsError: Weights that cannot be found, verified or matched.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        arch: str = "vgg16",
        *,
        weights: str | Path | None = "default",
        in_channels: int = 3,
        depth: int = 5,
        layers: Iterable[str] | None = None,
        unfreeze: str = "all",
        output_stride: Literal[8, 16, 32] = 32,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise OptionError(f"output_stride={output_stride} is not possible: use 8, 16 or 32")
        self.architecture = architecture(arch, in_channels=in_channels, depth=depth)
        parse_unfreeze(unfreeze, self.architecture)
        self.layers = _checked_names(unet_layers(self.architecture) if layers is None else layers, self.architecture)
        self.output_stride = output_stride
        self.normalize = normalize
        strides = _strides(self.architecture, output_stride)
        self.out_channels = tuple(self.architecture.layer(name).out_channels for name in self.layers)
        self.strides = tuple(strides[name] for name in self.layers)
        self._wanted = list(self.layers)
        self._range_checked = False

        self.trunk = nn.ModuleDict(_build(self.architecture, output_stride))
        self.register_buffer("mean", torch.empty(1, in_channels, 1, 1))
        self.register_buffer("std", torch.empty(1, in_channels, 1, 1))
        self.origin = "random (He initialisation)"
        self.digest: str | None = None
        if weights is None or weights == "none":
            self._initialise()
        else:
            self._load(weights)
        self.unfreeze(unfreeze)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns one map of shape [batch, out_channels[i], height / strides[i], width / strides[i]] per tap.

        Raises:
            InputError: Pictures of the wrong rank, channels or size; on the first batch also of the wrong range.
        """
        taps = self._run(images, self._wanted)
        return [taps[name] for name in self._wanted]

    def features(self, images: Tensor, *, layers: Iterable[str]) -> dict[str, Tensor]:
        """Returns the named taps; no layer past the deepest of them runs.

        Raises:
            OptionError: A name that this encoder does not have.
            InputError: As for `forward`.
        """
        names = _checked_names(layers, self.architecture)
        taps = self._run(images, list(names))
        return {name: taps[name] for name in names}

    def unfreeze(self, policy: str) -> Self:
        """Replaces the freezing policy: what it names trains, everything else is frozen.

        Frozen parameters have `requires_grad=False`; frozen BatchNorm layers use their running statistics and stay
        in evaluation mode through every `.train()` call. A frozen prefix of the network therefore saves nothing for
        backward, while gradients still reach the pictures when those require them.

        Args:
            policy: `"none"`, `"all"`, a block or layer name, a range `"block4-block5"`, or a comma list.
        """
        self.trainable_layers = parse_unfreeze(policy, self.architecture)
        self.unfreeze_policy = policy
        for name, module in self.trunk.items():
            module.requires_grad_(name in self.trainable_layers)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for layer in self.architecture.layers:
            if layer.kind == "bn" and layer.name not in self.trainable_layers:
                self.trunk[layer.name].eval()
        return self

    def extra_repr(self) -> str:
        return f"{self.architecture.name}, layers={self.layers}, unfreeze={self.unfreeze_policy!r}, {self.origin}"

    def _run(self, images: Tensor, wanted: list[str]) -> dict[str, Tensor]:
        # One loop serves eager mode, torch.compile, torch.export and TorchScript; the last one unrolls it and knows
        # no break, hence the countdown.
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check(images, wanted)
        x = images.to(self.mean.dtype)
        if self.normalize:
            x = (x - self.mean) / self.std
        taps: dict[str, Tensor] = {}
        remaining = len(wanted)
        keep = True
        for name, layer in self.trunk.items():
            if remaining > 0:
                if name.startswith("relu"):
                    # In place is about 10 % faster on CPUs, but must not overwrite a value that someone holds.
                    x = F.relu(x) if keep else F.relu_(x)
                else:
                    x = layer(x)
                keep = name in wanted
                if keep:
                    taps[name] = x
                    remaining -= 1
                if not torch.jit.is_scripting():  # type: ignore[attr-defined]
                    keep = keep or len(layer._forward_hooks) > 0
        return taps

    def _check(self, images: Tensor, wanted: list[str]) -> None:
        channels = self.mean.shape[1]
        if images.dim() != 4:
            raise InputError(
                f"expected a batch [batch, {channels}, height, width], got shape {list(images.shape)}; "
                "add a batch axis to a single picture with images[None]"
            )
        if images.shape[1] != channels:
            hint = "; channels come before height and width" if images.shape[3] == channels else ""
            raise InputError(
                f"expected {channels} channels, got shape {list(images.shape)}{hint} "
                f"(VGGEncoder(in_channels={images.shape[1]}) builds a network for {images.shape[1]})"
            )
        poolings = max(self.architecture.layer(name).block - (not name.startswith("pool")) for name in wanted)
        minimum = min(2**poolings, self.output_stride)
        if min(images.shape[2], images.shape[3]) < minimum:
            raise InputError(
                f"pictures of {images.shape[2]}x{images.shape[3]} do not survive {poolings} poolings: "
                f"the minimum is {minimum}x{minimum}; use larger pictures, a smaller depth or earlier layers"
            )
        if not self._range_checked and not torch.compiler.is_compiling():
            self._check_range(images)
            self._range_checked = True

    def _check_range(self, images: Tensor) -> None:
        if not images.is_floating_point():
            raise InputError(f"pictures are {images.dtype}; convert them to float in [0, 1] with images.float() / 255")
        if not self.normalize or images.is_meta or images.numel() == 0:
            return
        low, high = images.min().item(), images.max().item()
        if low >= -_RANGE_SLACK and high <= 1 + _RANGE_SLACK:
            return
        if math.isnan(low) or math.isnan(high):
            raise InputError("the pictures contain NaN")
        if high > 16:
            hint = "they look like [0, 255]: divide by 255"
        elif low >= -1 and high <= 1:
            hint = "they look like [-1, 1]: use (images + 1) / 2"
        else:
            hint = "if they are already normalised for these weights, build VGGEncoder(normalize=False)"
        raise InputError(f"pictures must lie in [0, 1], got [{low:.3g}, {high:.3g}]; {hint}")

    def _initialise(self) -> None:
        for module in self.trunk.values():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self._set_preprocessing(_IMAGENET_MEAN, _IMAGENET_STD)

    def _load(self, weights: str | Path) -> None:
        loaded = load_weights(
            self.architecture.name, weights, in_channels=self.mean.shape[1], depth=self.architecture.depth
        )
        names = set(self.architecture.layer_names)
        trunk = {key: tensor for key, tensor in loaded.trunk.items() if key.split(".")[0] in names}
        trunk["conv1_1.weight"] = adapt_channels(trunk["conv1_1.weight"], self.mean.shape[1])
        for name, module in self.trunk.items():
            if isinstance(module, nn.BatchNorm2d):
                assert module.num_batches_tracked is not None
                trunk.setdefault(f"{name}.num_batches_tracked", module.num_batches_tracked)
        self.trunk.load_state_dict(trunk)
        self._set_preprocessing(loaded.mean, loaded.std)
        self.origin, self.digest = loaded.origin, loaded.digest

    def _set_preprocessing(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        channels = self.mean.shape[1]
        for buffer, values in ((self.mean, mean), (self.std, std)):
            cycled = [sum(values) / 3] if channels == 1 else [values[channel % 3] for channel in range(channels)]
            buffer.copy_(torch.tensor(cycled).view(1, channels, 1, 1))


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Fits first-layer weights [out, 3, kernel, kernel] for RGB to another number of input channels.

    One channel gets the sum over RGB, so that a grey picture answers as its RGB copy would; other numbers cycle
    through RGB, rescaled by 3 / in_channels to keep the size of the response.
    """
    if in_channels == weight.shape[1]:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [channel % 3 for channel in range(in_channels)]] * (3 / in_channels)


def unet_layers(architecture: Architecture) -> tuple[str, ...]:
    """The taps that a U-Net decoder wants: the activation before each pooling, then the last pooling."""
    layers = architecture.layers
    before = [layers[position - 1].name for position, layer in enumerate(layers) if layer.kind == "pool"]
    return (*before, layers[-1].name)


def _checked_names(names: Iterable[str], architecture: Architecture) -> tuple[str, ...]:
    if isinstance(names, str):
        raise OptionError(f"layers='{names}' is a single string; write layers=['{names}']")
    chosen = tuple(architecture.layer(name).name for name in names)
    if not chosen or len(set(chosen)) < len(chosen):
        raise OptionError(f"layers={list(chosen)} must name at least one layer, each once")
    return chosen


def _strides(architecture: Architecture, output_stride: int) -> dict[str, int]:
    strides, stride = {}, 1
    for layer in architecture.layers:
        if layer.kind == "pool":
            stride = min(2 * stride, output_stride)
        strides[layer.name] = stride
    return strides


def _build(architecture: Architecture, output_stride: int) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {}
    stride, dilation = 1, 1
    for layer in architecture.layers:
        if layer.kind != "pool":
            modules[layer.name] = _module(layer, dilation)
        elif stride < output_stride:
            modules[layer.name] = nn.MaxPool2d(2)
            stride *= 2
        else:
            modules[layer.name] = DilatedMaxPool2d(dilation)
            dilation *= 2
    return modules


def _module(layer: Layer, dilation: int) -> nn.Module:
    match layer.kind:
        case "conv":
            padding = dilation * (layer.kernel_size // 2)
            return nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, padding=padding, dilation=dilation
            )
        case "bn":
            return nn.BatchNorm2d(layer.out_channels)
        case "lrn":
            # Krizhevsky et al. 2012, section 3.3: k=2, n=5, alpha=1e-4, beta=0.75. torch divides alpha by n.
            return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        case _:
            return nn.ReLU()


class DilatedMaxPool2d(nn.Module):
    """2x2 max pooling that keeps the size of the map: single steps, with taps `dilation` apart.

    Every (2 * dilation)-th value equals that of the pooling by 2 which it replaces, so that the weights behind it,
    dilated as well, see what they were trained on.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, [0, self.dilation, 0, self.dilation], value=-torch.inf)
        return F.max_pool2d(padded, 2, stride=1, dilation=self.dilation)

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"

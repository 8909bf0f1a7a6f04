"""VGGEncoder: a VGG trunk that returns any of its layers, freezes any part of itself and normalises its own input."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggtransfer.encoder.architectures import Architecture, architecture
from vggtransfer.encoder.freezing import parse_unfreeze
from vggtransfer.encoder.input_channels import adapt_first_layer, adapt_preprocessing
from vggtransfer.encoder.input_check import InputShape, check_range
from vggtransfer.encoder.layers import FreezableBatchNorm2d, build_layers, is_hooked, layer_strides
from vggtransfer.encoder.preprocessing import TORCHVISION
from vggtransfer.encoder.weights import load_weights
from vggtransfer.errors import OptionError


class VGGEncoder(nn.Module):
    """A VGG trunk as a feature extractor.

    Pictures go in as float tensors of shape [batch, channels, height, width], RGB, in [0, 1], of any size that
    survives the poolings. The weights' own preprocessing happens inside. Layers carry the names of Simonyan &
    Zisserman 2015: `conv1_1`, `bn1_1`, `relu1_1`, ..., `pool5`; a `conv*` tap is the value before ReLU. They are the
    modules of `encoder.trunk`, and hooks on any of them work as usual, forward and backward.

    The shape of every batch is checked, and the range of the first. Compiled and exported encoders do not check the
    range, scripted ones check nothing: run a batch through the encoder before compiling it.

    Args:
        arch: One of `vggtransfer.encoder.architectures.ARCHITECTURE_NAMES`.
        weights: `"default"` (the architecture's published weights), `"torchvision"`, `"timm"`, `"embedded"`, a path
            to a checkpoint or run directory, or None for random weights (He et al. 2015, normal, fan-out, as in
            torchvision).
        in_channels: Channels of the pictures. Pretrained first-layer weights are adapted, for 1 channel so that grey
            pictures answer as their RGB copies would (except at the borders), see `adapt_first_layer`.
        depth: Blocks to build, 1 to 5.
        layers: Taps that `forward` returns, in this order. None is the U-Net set: the last activation of each block
            before its pooling, then the last pooling.
        unfreeze: Freezing policy, see `unfreeze()`.
        output_stride: 8 or 16 keeps the later maps at that stride: poolings beyond it move by single steps and the
            layers after them are dilated, with the same weights (the "a trous" algorithm, Chen et al. 2015). For sides
            divisible by 32, all values of the network with stride 32 are among the dilated ones; for other sides
            this fails near the right and bottom borders where a replaced pooling would see an odd map.
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
        self.layers = checked_layers(unet_layers(self.architecture) if layers is None else layers, self.architecture)
        self.output_stride = output_stride
        self.normalize = normalize
        strides = layer_strides(self.architecture, output_stride)
        self.out_channels = tuple(self.architecture.layer(name).out_channels for name in self.layers)
        self.strides = tuple(strides[name] for name in self.layers)
        self._wanted = list(self.layers)
        self._range_checked = False

        self.trunk = nn.ModuleDict(build_layers(self.architecture, output_stride))
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
        names = checked_layers(layers, self.architecture)
        taps = self._run(images, list(names))
        return {name: taps[name] for name in names}

    def unfreeze(self, policy: str) -> Self:
        """Replaces the freezing policy: what it names trains, everything else is frozen.

        Frozen parameters have `requires_grad=False`; frozen BatchNorm layers use their running statistics and stay
        in evaluation mode, whichever module `.train()` is called on. A frozen prefix of the network saves nothing for
        backward, while gradients still reach the pictures when those require them.

        Args:
            policy: `"none"`, `"all"`, a block or layer name, a range `"block4-block5"`, or a comma list.
        """
        self.trainable_layers = parse_unfreeze(policy, self.architecture)
        self.unfreeze_policy = policy
        for name, module in self.trunk.items():
            module.requires_grad_(name in self.trainable_layers)
            if isinstance(module, FreezableBatchNorm2d):
                module.frozen = name not in self.trainable_layers
        return self.train(self.training)

    def blocks(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of each block, frozen or not, from the first block to the last."""
        found: list[list[nn.Parameter]] = [[] for _ in range(self.architecture.depth)]
        for layer in self.architecture.layers:
            found[layer.block - 1] += self.trunk[layer.name].parameters()
        return found

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # Those that do not see to it themselves, because `SyncBatchNorm.convert_sync_batchnorm` put them in.
        for name, module in self.trunk.items():
            if isinstance(module, nn.SyncBatchNorm) and name not in self.trainable_layers:
                module.eval()
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
        held = True  # x is the caller's, a tap, or known to a hook
        for name, layer in self.trunk.items():
            if remaining > 0:
                hooked, in_place = True, False
                if not torch.jit.is_scripting():  # type: ignore[attr-defined]
                    hooked = is_hooked(layer)
                    # About 10 % faster on CPUs, but must not overwrite a value that someone holds.
                    in_place = type(layer) is nn.ReLU and not hooked and not held
                x = F.relu_(x) if in_place else layer(x)
                held = hooked or name in wanted
                if name in wanted:
                    taps[name] = x
                    remaining -= 1
        return taps

    def _check(self, images: Tensor, wanted: list[str]) -> None:
        self.input_shape(wanted).check(images)
        if not self._range_checked and not torch.compiler.is_compiling():
            check_range(images, normalize=self.normalize)
            self._range_checked = True

    def input_shape(self, layers: Iterable[str]) -> InputShape:
        """What pictures must be to reach the deepest of some layers."""
        poolings = max(self.architecture.layer(name).block - (not name.startswith("pool")) for name in layers)
        return InputShape(channels=self.mean.shape[1], poolings=poolings, minimum=min(2**poolings, self.output_stride))

    def _initialise(self) -> None:
        for module in self.trunk.values():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self._set_preprocessing(TORCHVISION.mean, TORCHVISION.std)

    def _load(self, weights: str | Path) -> None:
        in_channels = self.mean.shape[1]
        loaded = load_weights(self.architecture.name, weights, in_channels=in_channels, depth=self.architecture.depth)
        names = set(self.architecture.layer_names)
        trunk = {key: tensor for key, tensor in loaded.trunk.items() if key.split(".")[0] in names}
        trunk["conv1_1.weight"], trunk["conv1_1.bias"] = adapt_first_layer(
            trunk["conv1_1.weight"], trunk["conv1_1.bias"], in_channels, mean=loaded.mean, std=loaded.std
        )
        for name, module in self.trunk.items():
            if isinstance(module, nn.BatchNorm2d):
                assert module.num_batches_tracked is not None
                trunk.setdefault(f"{name}.num_batches_tracked", module.num_batches_tracked)
        self.trunk.load_state_dict(trunk)
        self._set_preprocessing(loaded.mean, loaded.std)
        self.origin, self.digest = loaded.origin, loaded.digest

    def _set_preprocessing(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        for buffer, values in ((self.mean, mean), (self.std, std)):
            buffer.copy_(torch.tensor(adapt_preprocessing(values, buffer.shape[1])).view(buffer.shape))


def unet_layers(architecture: Architecture) -> tuple[str, ...]:
    """The taps that a U-Net decoder wants: the activation before each pooling, then the last pooling."""
    layers = architecture.layers
    before = [layers[position - 1].name for position, layer in enumerate(layers) if layer.kind == "pool"]
    return (*before, layers[-1].name)


def checked_layers(names: Iterable[str], architecture: Architecture) -> tuple[str, ...]:
    """Returns the names as a tuple.

    Raises:
        OptionError: The architecture lacks one, one stands there twice, or there are none.
    """
    if isinstance(names, str):
        raise OptionError(f"layers='{names}' is a single string; write layers=['{names}']")
    chosen = tuple(architecture.layer(name).name for name in names)
    if not chosen or len(set(chosen)) < len(chosen):
        raise OptionError(f"layers={list(chosen)} must name at least one layer, each once")
    return chosen

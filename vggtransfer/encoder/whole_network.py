"""The networks of `other_networks.py` with a new output layer for one's own classes, ready to train."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Self

import torch
import torchvision
from torch import Tensor, nn

from vggtransfer.encoder.checkpoint_files import read_checkpoint
from vggtransfer.encoder.download import download
from vggtransfer.encoder.other_networks import build_network, lenet5
from vggtransfer.encoder.preprocessing import TORCHVISION
from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.encoder.weight_sources import WeightSource
from vggtransfer.errors import OptionError, WeightsError

# torchvision's DenseNet was published when modules could still be called "norm.1".
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class WholeNetwork(nn.Module):
    """Scores pictures [batch, 3, height, width], RGB in [0, 1], as logits [batch, classes].

    Its convolutions and normalisations are what the training loop calls the backbone, its linear layers the head, as
    in a VGG classifier. There is no part of it to freeze.

    Args:
        arch: `lenet5` (ours) or one of torchvision's `alexnet`, `googlenet` (without the two auxiliary heads that the
            paper trains with), `resnet18`, `densenet121`.
        classes: Outputs of the last layer, which is always new.
        weights: `"default"`: torchvision's; `"none"`: those that the constructors draw.

    Attributes:
        pretrained_layers: The linear layers with pretrained weights, by name.
        origin: Where the weights came from.
        digest: SHA-256 of the weights as loaded, the published output layer included; None for random weights.

    Raises:
        WeightsError: Weights that do not exist, or cannot be fetched, verified or matched.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arch: str, *, classes: int, weights: str = "none") -> None:
        super().__init__()
        self.arch = arch
        self.network = lenet5(3, classes=classes) if arch == "lenet5" else build_network(arch, in_channels=3).train()
        self.origin = "random"
        self.digest: str | None = None
        mean, std = TORCHVISION.mean, TORCHVISION.std
        if weights != "none":
            tensors = _fitting(fetch_pretrained(arch))
            _load(self.network, tensors)
            self.origin, self.digest = pretrained_source(arch).origin, weights_digest(tensors)
            if arch == "googlenet":  # trained in TensorFlow, on [-1, 1]
                mean = std = (0.5, 0.5, 0.5)
        linear = {name: layer for name, layer in self.network.named_modules() if isinstance(layer, nn.Linear)}
        last, output = linear.popitem()
        self.network.set_submodule(last, nn.Linear(output.in_features, classes))
        self.pretrained_layers = linear if weights != "none" else {}
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.unfreeze("all")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

    def unfreeze(self, policy: str) -> Self:
        """Accepts `"all"`.

        Raises:
            OptionError: Any other policy.
        """
        if policy != "all":
            raise OptionError(f"unfreeze='{policy}' is for VGG networks; {self.arch} trains as a whole: use 'all'")
        self.unfreeze_policy = policy
        return self

    def blocks(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of everything but the linear layers, as one block."""
        features = (module for module in self.network.modules() if not isinstance(module, nn.Linear))
        return [[parameter for module in features for parameter in module.parameters(recurse=False)]]


def pretrained_source(arch: str) -> WeightSource:
    """Where torchvision's default weights of a network come from.

    Raises:
        WeightsError: There are none.
    """
    if arch == "lenet5":
        raise WeightsError("there are no pretrained weights of lenet5; leave it out or start from --weights none")
    name = PurePosixPath(torchvision.models.get_model_weights(arch).DEFAULT.url).name
    digest = re.search(r"-([0-9a-f]{8,})\.", name)
    assert digest is not None
    return WeightSource(arch, "torchvision", name, digest[1])


def fetch_pretrained(arch: str) -> Mapping[str, Tensor]:
    """Loads torchvision's weights of a network from the cache, downloading and verifying them first if need be.

    Raises:
        WeightsError: They do not exist, or cannot be fetched, verified or read.
    """
    source = pretrained_source(arch)
    path = source.path.with_suffix(".pth")
    if not path.exists():
        download(source.url, path, sha256=source.sha256)
    return read_checkpoint(path).tensors


def _fitting(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # GoogLeNet's file has the auxiliary heads, which are not built here.
    return {_OLD_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in tensors.items() if not key.startswith("aux")}


def _load(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"the cached weights do not fit the network: {reason}; delete and fetch them again"
        ) from error

"""Learned weights of LPIPS and DISTS, from the files users have, strictly the right kind for the right place."""

from __future__ import annotations

import importlib.util
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vggtransfer.encoder.checkpoint_files import read_checkpoint
from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.errors import WeightsError

LpipsVersion = Literal["0.1", "0.0"]

# Channels of the layers that each published set of LPIPS heads looks at.
_LPIPS_CHANNELS = {
    "vgg16": (64, 128, 256, 512, 512),
    "alexnet": (64, 192, 384, 256, 256),
    "squeezenet": (64, 128, 256, 384, 384, 512, 512),
}
# `weights_digest` of the published VGG16 heads, in float32, as lin0 to lin4; both versions have the same shapes.
_LPIPS_VERSIONS = {
    "bf598b1fc9487885d476a635311f13b351a4ac71626e247d6c75daa595f74307": "0.1",
    "d5b2aab2b9824933286ca90804065f6c3a4c39d785965c3f473c0e7cd2a16aad": "0.0",
}
_LPIPS_KEY = re.compile(r"lin\d+\.")
_DISTS_CHANNELS = (3, 64, 128, 256, 512, 512)


@dataclass(frozen=True)
class Heads:
    """Learned weights of the layers, and where they came from.

    `weights` has one tensor [channels] per layer for LPIPS; for DISTS the alphas of all layers, then the betas.
    """

    weights: tuple[Tensor, ...]
    origin: str
    digest: str


def load_lpips_heads(heads: str | Path, *, version: LpipsVersion) -> Heads:
    """Loads the linear heads of LPIPS for VGG16: one weight per channel of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.

    Args:
        heads: `"lpips"` finds the files of an installed `lpips` package, else torchmetrics' copy of version 0.1; or a
            file: `vgg.pth` of either, or piq's `lpips_weights.pt`.
        version: What the file must be, if it is one of the published.

    Raises:
        WeightsError: No such file, or another kind of file; says what it is.
    """
    path = _lpips_file(version) if heads == "lpips" else Path(heads)
    tensors = _tensors(path)
    kind = _kind(tensors)
    if kind != "LPIPS heads of vgg16":
        raise WeightsError(f"heads={path} is {kind}; LPIPS on VGG16 needs its linear heads, such as lpips' vgg.pth")
    weights = tuple(tensor.float().flatten() for tensor in tensors.values())
    digest = weights_digest({f"lin{position}": weight for position, weight in enumerate(weights)})
    known = _LPIPS_VERSIONS.get(digest)
    if known not in (None, version):
        raise WeightsError(f"heads={path} are those of LPIPS version {known}, but version={version} was asked for")
    return Heads(weights, str(path), digest)


def load_dists_weights(heads: str | Path) -> Heads:
    """Loads alpha and beta of DISTS: two weights per channel of the picture and five layers of VGG16.

    Args:
        heads: `"DISTS_pytorch"` finds the file of an installed package, else torchmetrics' copy; or a file, the
            authors' `weights.pt` or piq's `dists_weights.pt`.

    Raises:
        WeightsError: No such file, or another kind of file; says what it is.
    """
    path = _dists_file() if heads == "DISTS_pytorch" else Path(heads)
    tensors = _tensors(path)
    kind = _kind(tensors)
    if kind != "DISTS weights":
        raise WeightsError(
            f"heads={path} is {kind}; DISTS needs its alpha and beta, such as DISTS_pytorch's weights.pt"
        )
    parts = [tensors[name].float().flatten() for name in ("alpha", "beta")]
    digest = weights_digest({"alpha": parts[0], "beta": parts[1]})
    return Heads(tuple(part for both in parts for part in torch.split(both, list(_DISTS_CHANNELS))), str(path), digest)


def _kind(tensors: Mapping[str, Tensor]) -> str:
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if tensors.keys() == {"alpha", "beta"}:
        total = sum(_DISTS_CHANNELS)
        if all(tensor.numel() == total for tensor in tensors.values()):
            return "DISTS weights"
        return f"a file with alpha and beta of another size than DISTS' {total}"
    if all(len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1 for shape in shapes):
        found = tuple(shape[1] for shape in shapes)
        nets = [net for net, channels in _LPIPS_CHANNELS.items() if channels == found]
        return f"LPIPS heads of {nets[0]}" if nets else f"a set of heads for layers of {list(found)} channels"
    if any(len(shape) == 4 and shape[2] > 1 for shape in shapes):
        return "the weights of a network, a backbone (they go to weights=)"
    return f"a file with {', '.join(list(tensors)[:3])}, none of which belongs to LPIPS or DISTS"


def _tensors(path: Path) -> dict[str, Tensor]:
    path = path.expanduser()
    if (listed := _listed(path)) is not None:
        return {f"lin{position}": tensor for position, tensor in enumerate(listed)}
    tensors = read_checkpoint(path).tensors
    # A whole `lpips.LPIPS` saved has its heads under this name, again as `lins`, and the backbone.
    heads = {name: tensors[name] for name in sorted(tensors) if _LPIPS_KEY.match(name)}
    return heads or tensors


def _listed(path: Path) -> Sequence[Tensor] | None:
    """The tensors of a file that is a bare list of them, as piq's LPIPS heads are."""
    if not zipfile.is_zipfile(path):
        return None
    with warnings.catch_warnings(), suppress(Exception):  # whatever is wrong with it, `read_checkpoint` says so
        warnings.simplefilter("ignore")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, list | tuple) and content and all(isinstance(item, Tensor) for item in content):
            return content
    return None


def _lpips_file(version: LpipsVersion) -> Path:
    own = _package_file("lpips", f"weights/v{version}/vgg.pth")
    if own is not None:
        return own
    copied = _package_file("torchmetrics", "functional/image/lpips_models/vgg.pth") if version == "0.1" else None
    if copied is None:
        raise WeightsError(
            f"heads=lpips: no package here has the heads of version {version}; pip install lpips, or give a file"
        )
    return copied


def _dists_file() -> Path:
    found = _package_file("DISTS_pytorch", "weights.pt") or _package_file(
        "torchmetrics", "functional/image/dists_models/weights.pt"
    )
    if found is None:
        raise WeightsError("heads=DISTS_pytorch: no package here has them; pip install dists-pytorch, or give a file")
    return found


def _package_file(package: str, name: str) -> Path | None:
    """The file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(folder) / name).is_file():
            return path
    return None

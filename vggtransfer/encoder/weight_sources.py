"""The published weights that can be named instead of given as a file, and where each of them lies.

Nothing here needs torch or the network. What is known of every file:

- torchvision puts the first 8 hex digits of the file's SHA-256 into its name; those are always verified. The full
  digests of four files are published often enough to be sure of, and are verified in full.
- timm's files are those same weights in safetensors form on the Hugging Face hub. Their digests are the ones the
  hub shows for the LFS object. For the two files whose digest is not known here, the one that the hub announces
  with the download (`X-Linked-ETag`) is verified instead.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vggtransfer.cache import cache_folder
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, architecture
from vggtransfer.errors import WeightsError, did_you_mean

SourceName = Literal["torchvision", "timm", "embedded"]
SOURCE_NAMES: tuple[str, ...] = get_args(SourceName)

# SHA-256 of the files, in full or their first 8 hex digits.
_TORCHVISION = {
    "vgg11": "8a719046",
    "vgg13": "19584684",
    "vgg16": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "vgg19": "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    "vgg11_bn": "6002323d",
    "vgg13_bn": "abd245e5",
    "vgg16_bn": "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
    "vgg19_bn": "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6",
}
_TIMM = {
    "vgg11": "682c023808812148d4e60c76d80ad83dbeaf5d50eb1a952a0b836895003151e5",
    "vgg13": "",
    "vgg16": "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    "vgg19": "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
    "vgg11_bn": "",
    "vgg13_bn": "7dae235e35772693cd527e7ac9ef8f6594707a14a8d26aabdb83c0baa6847861",
    "vgg16_bn": "88bbedbc8e780413736db38ac4efd41b06fc0e93fd5b8879b584bba63a950129",
    "vgg19_bn": "f8249087e63bae61c6166bb23d7c26efe1b2a43fd9fb5cd60ac6ce00535ba312",
}
# In full: of the files in the package.
_EMBEDDED = {"vgg16_bn_x0_25": "ef368b4860eae99816ffa48b67cf53dce198d6a85b8b2e3adacb09d81d0d9652"}

_TORCHVISION_SERVER = "https://download.pytorch.org/models"
_HUGGING_FACE_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class WeightSource:
    """One published file.

    `sha256` is the full digest or its first hex digits; empty if only the server can tell. `tag` tells apart the
    files that one source may publish for an architecture over time; it is part of the name in the cache.
    """

    architecture: str
    name: SourceName
    file_name: str
    sha256: str

    @property
    def tag(self) -> str:
        return self.sha256[:8] or "tv_in1k"

    @property
    def url(self) -> str:
        """Where to get the file; `VGGTRANSFER_TORCHVISION_URL` and `HF_ENDPOINT` name mirrors."""
        match self.name:
            case "torchvision":
                return f"{_server('VGGTRANSFER_TORCHVISION_URL', _TORCHVISION_SERVER)}/{self.file_name}"
            case "timm":
                hub = _server("HF_ENDPOINT", _HUGGING_FACE_HUB)
                return f"{hub}/timm/{self.architecture}.tv_in1k/resolve/main/{self.file_name}"
            case "embedded":
                return ""

    @property
    def origin(self) -> str:
        """How a loaded encoder names these weights, the same wherever they were fetched from."""
        match self.name:
            case "torchvision":
                return f"torchvision {self.file_name}"
            case "timm":
                return f"timm/{self.architecture}.tv_in1k"
            case "embedded":
                return f"embedded {self.file_name}"

    @property
    def path(self) -> Path:
        """Where the trunk is kept, whether it is there or not: in the cache or, if embedded, in the package."""
        if self.name == "embedded":
            return Path(__file__).parent / "embedded" / self.file_name
        return cache_folder() / "weights" / f"{self.architecture}-{self.name}-{self.tag}.safetensors"


def sources_of(arch: str) -> tuple[WeightSource, ...]:
    """The published weights of an architecture, its default first; empty for those that have none.

    Raises:
        OptionError: Unknown architecture.
    """
    architecture(arch)
    found: list[WeightSource] = []
    if arch in _TORCHVISION:
        digest = _TORCHVISION[arch]
        found.append(WeightSource(arch, "torchvision", f"{arch}-{digest[:8]}.pth", digest))
    if arch in _TIMM:
        found.append(WeightSource(arch, "timm", "model.safetensors", _TIMM[arch]))
    if arch in _EMBEDDED:
        found.append(WeightSource(arch, "embedded", f"{arch}.safetensors", _EMBEDDED[arch]))
    return tuple(found)


def find_source(arch: str, name: str) -> WeightSource:
    """Looks up a named source; `"default"` is the architecture's own.

    Raises:
        OptionError: Unknown architecture.
        WeightsError: Unknown source, or one that has no weights of this architecture.
    """
    sources = sources_of(arch)
    for source in sources:
        if name in (source.name, "default"):
            return source
    if name not in (*SOURCE_NAMES, "default"):
        known = ", ".join(("default", *SOURCE_NAMES))
        raise WeightsError(f"unknown weights '{name}'{did_you_mean(name, SOURCE_NAMES)}; known: {known}")
    if not sources:
        raise WeightsError(
            f"there are no published weights of {arch} in this package (asked for '{name}'); "
            f"start from random weights with weights=None (--weights none), or give a file"
        )
    have = ", ".join(other for other in ARCHITECTURE_NAMES if any(s.name == name for s in sources_of(other)))
    raise WeightsError(
        f"'{name}' has no weights of {arch}, only of {have}; "
        f"for {arch} use weights='{sources[0].name}', a file, or weights=None (--weights none)"
    )


def classifier_path(path: Path) -> Path:
    """Where the fully connected layers that belong to a trunk file are kept."""
    return path.with_name(f"{path.stem}-classifier.safetensors")


def _server(variable: str, default: str) -> str:
    return (os.environ.get(variable) or default).rstrip("/")

"""Our own weight files: safetensors with the papers' layer names and, in the header, all there is to know.

The header's `vggtransfer` entry is a JSON object: `format` 1, `kind` ("trunk", "fully-connected", or what a task's
model file says), `architecture`, `mean` and `std` (RGB, for pictures in [0, 1]), `origin` and `digest` (of the trunk in
the file, or of the fully connected layers where there is nothing else).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggtransfer.cache import write_atomically
from vggtransfer.encoder.checkpoint_files import CheckpointFile
from vggtransfer.errors import WeightsError

_FORMAT = 1


@dataclass(frozen=True)
class FileHeader:
    """The `vggtransfer` entry of a file's header; `more` holds what a task's model file adds."""

    kind: str
    architecture: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    digest: str
    more: Mapping[str, Any]


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors' sorted names, types, shapes and bytes: the same for the same weights in any file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        # Through bytes, because numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def trunk_digest(tensors: Mapping[str, Tensor], *, prefix: str = "encoder.trunk.") -> str:
    """The digest that the trunk inside a model's tensors has in a trunk file, where there is no `num_batches_tracked`.

    Args:
        tensors: Of the whole model.
        prefix: What the names of the trunk's tensors begin with.
    """
    return weights_digest(
        {
            key.removeprefix(prefix): tensor
            for key, tensor in tensors.items()
            if key.startswith(prefix) and not key.endswith("num_batches_tracked")
        }
    )


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    header: FileHeader,
    *,
    remedy: str = "free space or choose another folder",
) -> None:
    """Writes a file that is either whole or not there; `remedy` is what the error advises.

    Raises:
        WeightsError: The folder cannot be written or the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    entry = {
        "format": _FORMAT,
        "kind": header.kind,
        "architecture": header.architecture,
        "mean": header.mean,
        "std": header.std,
        "origin": header.origin,
        "digest": header.digest,
        **header.more,
    }
    try:
        with write_atomically(path) as temporary:
            whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(whole, temporary, metadata={"vggtransfer": json.dumps(entry)})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {path}: {error}; {remedy}") from error


def read_header(file: CheckpointFile) -> FileHeader | None:
    """The header of one of our own files, None for anybody else's.

    Raises:
        WeightsError: The header is damaged or was written by a newer version.
    """
    text = file.metadata.get("vggtransfer")
    if text is None:
        return None
    try:
        entry = json.loads(text)
        if entry.pop("format") != _FORMAT:
            raise WeightsError(f"{file.path} was written by another version of vggtransfer; update this one")
        return FileHeader(
            kind=str(entry.pop("kind")),
            architecture=str(entry.pop("architecture")),
            mean=tuple(float(value) for value in entry.pop("mean")),
            std=tuple(float(value) for value in entry.pop("std")),
            origin=str(entry.pop("origin")),
            digest=str(entry.pop("digest") or ""),
            more=entry,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{file.path} has a damaged header ({error!r}); fetch or save it again") from error


def check_digest(file: CheckpointFile, header: FileHeader, found: str) -> str:
    """Compares the digest of the tensors that were found in a file with the one in its header, and returns it.

    Raises:
        WeightsError: They are not what was written.
    """
    if found != header.digest:
        raise WeightsError(
            f"{file.path} is damaged: its weights have the digest {found[:16]}..., its header says "
            f"{header.digest[:16]}...; delete it and fetch, convert or train it again"
        )
    return found

"""Reads the tensors of a file, whatever program wrote it, without ever running code from it.

The kind of file is told by its first bytes, not by its suffix, so a renamed file works and an HTML page called
`.pth` gets an honest answer.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vggtransfer.errors import WeightsError

_NESTED_KEYS = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params")
_KERAS_LAYER = re.compile(r"block\d+_conv\d+|fc\d|predictions")
# Keras 1 wrote block1_conv1_W_1:0, Keras 2 kernel:0, Keras 3 kernel; .weights.h5 files number them 0 and 1.
_KERAS_KERNEL = re.compile(r"(?:kernel|.*_W)(?:_\d+)?(?::0)?|0")
_KERAS_BIAS = re.compile(r"(?:bias|.*_b)(?:_\d+)?(?::0)?|1")


@dataclass(frozen=True)
class CheckpointFile:
    """The tensors of a file under its own keys, and the metadata of a safetensors header."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_checkpoint(path: Path) -> CheckpointFile:
    """Reads a safetensors, PyTorch or Keras file; Keras weights get keys such as `block1_conv1/kernel`.

    Raises:
        WeightsError: No such file, half a file, not a weights file, or one that would need to run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {path}: {error.strerror or error}") from error
    if not start:
        raise WeightsError(f"{path} is empty (0 bytes); download or save it again")
    if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise WeightsError(f"{path} is an HTML page, not weights (a login or error page was saved); download it again")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the file itself; get it with 'git lfs pull'")
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return CheckpointFile(path, _read_keras(path, path), {})
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "model.weights.h5" in archive.namelist():
                return CheckpointFile(path, _read_keras(path, io.BytesIO(archive.read("model.weights.h5"))), {})
    if start.startswith((b"PK", b"\x80")):
        return CheckpointFile(path, _read_torch(path), {})
    raise WeightsError(
        f"{path} is not a weights file that can be read here: expected safetensors, a PyTorch state dict (.pth), "
        f"or a Keras file (.h5, .weights.h5, .keras)"
    )


def _read_safetensors(path: Path) -> CheckpointFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged or incomplete ({_one_line(error)}); download or save it again"
        ) from error
    return CheckpointFile(path, tensors, metadata)


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # torch warns of TorchScript archives before it refuses them; the refusal is enough.
            warnings.simplefilter("ignore")
            # Memory mapping reads only the layers that are used, but not from files older than torch 1.6.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # Names that may not be called make it refuse; unknown instructions may as well be garbage.
        if "Unsupported operand" in str(error) or "Unsupported" not in str(error):
            raise WeightsError(f"{path} is damaged or not a PyTorch state dict; download or save it again") from error
        raise WeightsError(
            f"{path} holds Python objects besides tensors, which could run any code when loaded, and is refused; "
            f"where it came from, save it with torch.save(model.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{path} is damaged, incomplete or not a PyTorch state dict ({_one_line(error)}); download or save it again"
        ) from error
    tensors = _find_state_dict(content)
    if not tensors:
        shown = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(
            f"{path} holds no state dict (found: {shown}); save it with torch.save(model.state_dict(), ...)"
        )
    return tensors


def _find_state_dict(content: object, depth: int = 3) -> dict[str, Tensor]:
    """The tensors of a mapping, or of the mapping nested in it under one of the usual names."""
    if not isinstance(content, Mapping) or depth == 0:
        return {}
    tensors = {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}
    for key in _NESTED_KEYS:
        nested = _find_state_dict(content.get(key), depth - 1)
        # Checkpoints keep loose tensors (a step counter, loss weights) beside the state dict.
        if len(nested) > len(tensors):
            return nested
    return tensors


def _read_keras(path: Path, file: Path | IO[bytes]) -> dict[str, Tensor]:
    import h5py

    tensors: dict[str, Tensor] = {}
    others: list[str] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or name.startswith(("optimizer_weights/", "optimizer/")):
            return
        *folders, last = name.split("/")
        # Keras 3 numbers its groups by class (conv2d_3/vars/0) and keeps the layer's name as an attribute.
        layers = [part for part in (*folders, str(item.parent.attrs.get("name", ""))) if _KERAS_LAYER.fullmatch(part)]
        kind = "kernel" if _KERAS_KERNEL.fullmatch(last) else "bias" if _KERAS_BIAS.fullmatch(last) else ""
        if layers and kind:
            tensors[f"{layers[-1]}/{kind}"] = torch.from_numpy(item[()])
        else:
            others.append(name)

    try:
        with h5py.File(file, "r") as content:
            content.visititems(visit)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path} is damaged or incomplete ({_one_line(error)}); download or save it again"
        ) from error
    if not tensors:
        raise WeightsError(
            f"{path} holds none of Keras's VGG layers (block1_conv1, ...); found: {', '.join(others[:3]) or 'nothing'}"
        )
    return tensors


def _one_line(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."

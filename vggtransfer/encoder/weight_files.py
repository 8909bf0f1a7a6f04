"""One weights file, in our own or anybody else's layout, to named tensors and the preprocessing they expect."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from vggtransfer.encoder.checkpoint_files import CheckpointFile, read_checkpoint
from vggtransfer.encoder.key_layouts import LayoutName, RecognisedKeys, fit_architecture, recognise_keys
from vggtransfer.encoder.preprocessing import (
    CAFFE_BGR,
    NONE,
    TORCHVISION,
    Preprocessing,
    PreprocessingName,
    caffe_fingerprint,
    is_caffe_file_name,
    known_preprocessing,
)
from vggtransfer.encoder.trunk_files import FileHeader, check_digest, read_header, weights_digest, write_weights
from vggtransfer.encoder.weight_sources import classifier_path
from vggtransfer.errors import WeightsError

WithClassifier = bool | Literal["if present"]

_CLASSIFIER_SHAPES = {"fc6": (4096, 512 * 7 * 7), "fc7": (4096, 4096)}


@dataclass(frozen=True)
class LoadedWeights:
    """Weights under the papers' names, with what the network must do to its pictures.

    `trunk` has keys such as `conv1_1.weight` and `bn1_1.running_mean`, RGB order, values and types as in the file;
    `num_batches_tracked` is left out. `classifier` has `fc6.weight` [4096, 25088] (channels, rows, columns) to
    `fc8.bias`, or nothing unless asked for. The network sees (pictures - mean) / std, in RGB. `digest` is
    `weights_digest` of the trunk.
    """

    architecture: str
    layout: str
    preprocessing: str
    trunk: dict[str, Tensor] = field(repr=False)
    classifier: dict[str, Tensor] = field(repr=False)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    origin: str
    digest: str


def find_file(path: Path) -> Path:
    """The weights file that a path means: itself, or a run directory's model.

    Raises:
        WeightsError: There is none.
    """
    path = path.expanduser()
    if path.is_dir():
        if not (path / "model.safetensors").exists():
            raise WeightsError(f"the folder {path} is not a run directory: it has no model.safetensors; give a file")
        return path / "model.safetensors"
    if not path.exists():
        raise WeightsError(f"there is no weights file {path} (looked in {path.absolute().parent})")
    return path


def read_weights(
    path: Path,
    arch: str | None,
    *,
    classifier: WithClassifier = False,
    depth: int = 5,
    layout: LayoutName = "auto",
    preprocessing: PreprocessingName = "auto",
) -> LoadedWeights:
    """Reads any supported file, in our own or anybody else's layout.

    Args:
        path: The file.
        arch: The architecture it must be, None to tell it from the shapes.
        classifier: Also read the fully connected layers; `"if present"` does without where there are none.
        depth: Blocks that must be there.
        layout: What the file must be.
        preprocessing: What the network was trained with; `"auto"` finds out, see `preprocessing.py`.

    Raises:
        WeightsError: The file cannot be read, does not fit, or its preprocessing cannot be told.
    """
    file = read_checkpoint(path)
    header = read_header(file)
    if header is None:
        return _read_foreign(file, arch, classifier=classifier, depth=depth, layout=layout, preprocessing=preprocessing)
    if (layout, preprocessing) != ("auto", "auto"):
        raise WeightsError(f"{path} says itself what it holds; leave out --layout and --preprocessing")
    return _read_own(file, header, arch, classifier=classifier, depth=depth)


def _read_own(
    file: CheckpointFile, header: FileHeader, arch: str | None, *, classifier: WithClassifier, depth: int
) -> LoadedWeights:
    if header.kind == "fully-connected":
        raise WeightsError(f"{file.path} holds only fully connected layers; give the file without '-classifier'")
    if arch not in (None, header.architecture):
        raise WeightsError(f"{file.path} holds {header.architecture}, not {arch}; use arch='{header.architecture}'")
    keys = recognise_keys(file.tensors, source=str(file.path))
    found, trunk = fit_architecture(keys, header.architecture, depth=depth, source=str(file.path))
    layers = (keys.classifier or _classifier_beside(file.path)) if classifier else {}
    if classifier is True or layers:
        layers = _checked_classifier(layers, file.path)
    return LoadedWeights(
        architecture=found,
        layout="vggtransfer",
        preprocessing=known_preprocessing(header.mean, header.std).name,
        trunk=trunk,
        classifier=layers,
        mean=_three(header.mean),
        std=_three(header.std),
        origin=header.origin if header.kind == "trunk" else f"{file.path} ({header.origin})",
        digest=check_digest(file, header, weights_digest(trunk)),
    )


def _read_foreign(
    file: CheckpointFile,
    arch: str | None,
    *,
    classifier: WithClassifier,
    depth: int,
    layout: LayoutName,
    preprocessing: PreprocessingName,
) -> LoadedWeights:
    keys = recognise_keys(file.tensors, layout=layout, source=str(file.path))
    found, trunk = fit_architecture(keys, arch, depth=depth, source=str(file.path))
    known = _find_preprocessing(file.path, keys, trunk, layout, preprocessing)
    layers = keys.classifier if classifier else {}
    if classifier is True or layers:
        layers = _checked_classifier(layers, file.path)
    if known.bgr:
        trunk["conv1_1.weight"] = trunk["conv1_1.weight"].flip(1)
    return LoadedWeights(
        architecture=found,
        layout=keys.layout,
        preprocessing=known.name,
        trunk=trunk,
        classifier=layers,
        mean=_three(known.mean),
        std=_three(known.std),
        origin=f"{file.path} (key names of {keys.layout}; pictures as {known.name})",
        digest=weights_digest(trunk),
    )


def in_half_precision(loaded: LoadedWeights) -> LoadedWeights:
    """The same weights with those of the layers in float16; biases and BatchNorm, a hundredth of all, stay as they are.

    Raises:
        WeightsError: A value is too large for float16.
    """

    def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        halves = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in tensors.items()}
        for name, tensor in halves.items():
            if not tensor.isfinite().all():
                raise WeightsError(f"{name} has values that float16 cannot hold (above 65504 or not finite)")
        return halves

    trunk = halved(loaded.trunk)
    return replace(loaded, trunk=trunk, classifier=halved(loaded.classifier), digest=weights_digest(trunk))


def save_weights(path: Path, loaded: LoadedWeights) -> None:
    """Writes the trunk to `path` and the classifier, if loaded, to a second file beside it."""
    header = FileHeader("trunk", loaded.architecture, loaded.mean, loaded.std, loaded.origin, loaded.digest, {})
    if loaded.classifier:
        digest = weights_digest(loaded.classifier)
        # First, so that a trunk in its place tells that all is there.
        write_weights(classifier_path(path), loaded.classifier, replace(header, kind="fully-connected", digest=digest))
    write_weights(path, loaded.trunk, header)


def _find_preprocessing(
    path: Path, keys: RecognisedKeys, trunk: dict[str, Tensor], layout: LayoutName, asked: PreprocessingName
) -> Preprocessing:
    weight, bias = trunk["conv1_1.weight"], trunk["conv1_1.bias"]
    if {"mean", "std"} <= keys.preprocessing.keys() and asked == "auto":
        mean, std = (keys.preprocessing[name].flatten().tolist() for name in ("mean", "std"))
        return known_preprocessing(tuple(mean), tuple(std))
    if weight.shape[1] != 3:
        raise WeightsError(f"{path}: conv1_1 has {weight.shape[1]} input channels; only RGB weights can be converted")
    fingerprint = caffe_fingerprint(weight, bias)
    if fingerprint is not None and asked in ("torchvision", "none"):
        print(
            f"warning: the filters of {path} are those of the Caffe networks ({fingerprint.name}), "
            f"but preprocessing={asked} was asked for and is used",
            file=sys.stderr,
        )
    match asked:
        case "torchvision":
            return TORCHVISION
        case "none":
            return NONE
        case "caffe":
            return fingerprint or CAFFE_BGR
    if fingerprint is not None:
        return fingerprint
    if layout == "caffe" or keys.layout == "keras" or is_caffe_file_name(path.name):
        return CAFFE_BGR
    if keys.layout == "papers" or keys.has_old_classifier_keys:
        raise WeightsError(
            f"cannot tell whether {path} wants torchvision's or Caffe's pictures (RGB mean and std, or BGR 0-255); say "
            f"it with: vggtransfer weights convert {path} --out NEW.safetensors --preprocessing torchvision|caffe|none"
        )
    return TORCHVISION


def _classifier_beside(path: Path) -> dict[str, Tensor]:
    beside = classifier_path(path)
    if not beside.exists():
        return {}
    file = read_checkpoint(beside)
    header = read_header(file)
    if header is None:
        raise WeightsError(f"{beside} was not written by vggtransfer; move it away or convert it again")
    check_digest(file, header, weights_digest(file.tensors))
    return file.tensors


def _checked_classifier(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    names = {f"{layer}.{kind}" for layer in ("fc6", "fc7", "fc8") for kind in ("weight", "bias")}
    if missing := sorted(names - tensors.keys()):
        raise WeightsError(
            f"{path} does not hold the fully connected layers ({missing[0]} is missing); use a file that has them, "
            f"one that was fetched or converted with the classifier, or do without them"
        )
    for layer, shape in _CLASSIFIER_SHAPES.items():
        found = tuple(tensors[f"{layer}.weight"].shape)
        if found != shape:
            raise WeightsError(
                f"{path}: {layer}.weight is {list(found)} instead of {list(shape)}: its classifier is not VGG's own "
                f"for 224x224 pictures; do without it"
            )
    return {name: tensors[name] for name in sorted(names)}


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    """Mean or std of RGB; other numbers of channels are cut or filled up, as `VGGEncoder` cycles through them."""
    red, green, blue = (*values, *values[-1:] * 2)[:3]
    return red, green, blue

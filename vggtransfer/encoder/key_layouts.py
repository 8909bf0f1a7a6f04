"""Recognises whose key names a checkpoint uses, and turns them into the papers' layer names.

| layout | trunk | classifier |
| --- | --- | --- |
| torchvision, smp | `features.0.weight` | `classifier.0.weight` [4096, 25088], `.3`, `.6` |
| timm | `features.0.weight` | `pre_logits.fc1.weight` [4096, 512, 7, 7], `pre_logits.fc2`, `head.fc` |
| jcjohnson's Caffe ports | `features.0.weight` | `classifier.1.weight`, `.4`, `.6` |
| style-transfer ports of Caffe, and our own | `conv1_1.weight` | `fc6.weight`, `fc7`, `fc8` |
| Keras | `block1_conv1/kernel` [3, 3, in, out] | `fc1/kernel` [25088, 4096] in row, column, channel order |

Values are not changed here except for the order of axes; channel order and scale are `preprocessing.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, Architecture, architecture
from vggtransfer.errors import WeightsError

LayoutName = Literal["auto", "torchvision", "timm", "keras", "caffe"]

# First keys of the trunk; whatever stands before them (module., model., encoder., trunk., ...) is a prefix.
_ANCHOR = re.compile(r"(?P<prefix>.*?)(?P<first>features[._]0\.weight|conv1_1\.weight)")
# Sequential slices (`vgg.features.state_dict()`) start with a bare number.
_BARE_ANCHOR = re.compile(r"(?P<prefix>(?:module\.|model\.|encoder\.)*)0\.weight")
_INDEXED = re.compile(r"features[._](\d+\.\w+)")
_BARE_INDEXED = re.compile(r"(\d+\.\w+)")
_LINEAR = re.compile(r"classifier\.(\d+)\.(weight|bias)")
_NAMED_LINEAR = {"pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "head.fc": "fc8"}
_KERAS_LINEAR = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}


@dataclass(frozen=True)
class RecognisedKeys:
    """A checkpoint's VGG tensors, torch axis order, still without an architecture.

    `trunk` is keyed by position in the Sequential (`0.weight`) when `indexed`, else by layer (`conv1_1.weight`);
    `classifier` by `fc6.weight` ... `fc8.bias`. `preprocessing` holds a `mean` and `std` saved beside the trunk.
    """

    layout: str
    indexed: bool
    trunk: dict[str, Tensor]
    classifier: dict[str, Tensor]
    preprocessing: dict[str, Tensor] = field(default_factory=dict)
    has_old_classifier_keys: bool = False


def recognise_keys(tensors: dict[str, Tensor], *, layout: LayoutName = "auto", source: str) -> RecognisedKeys:
    """Finds the trunk and the classifier among the tensors of a file; all others (decoders, heads) are left out.

    Args:
        tensors: As read by `read_checkpoint`.
        layout: What the file must be; `"auto"` accepts any.
        source: How errors call the file.

    Raises:
        WeightsError: No VGG trunk, more than one, or another layout than asked for.
    """
    found = _recognise_keras(tensors, source) if all("/" in key for key in tensors) else _recognise(tensors, source)
    fits = {"auto", found.layout}
    if found.layout in ("torchvision", "papers"):
        fits.add("caffe")
    if found.layout == "torchvision" and not found.classifier:
        fits.add("timm")
    if layout not in fits:
        raise WeightsError(f"{source} has the key names of {found.layout}, not of {layout}; use layout auto")
    return found


def fit_architecture(
    keys: RecognisedKeys, arch: str | None, *, depth: int, source: str
) -> tuple[str, dict[str, Tensor]]:
    """Names the layers of a trunk after the papers and checks that it is all there.

    Args:
        keys: From `recognise_keys`.
        arch: The architecture it must be; None to tell it from the shapes.
        depth: Blocks that must be there; further ones are returned as well if they are complete.
        source: How errors call the file.

    Returns:
        The architecture's name and its tensors under keys such as `conv1_1.weight`, without BatchNorm's
        `num_batches_tracked`, which some files have and others do not.

    Raises:
        WeightsError: Layers are missing, or the shapes are those of another architecture, which is named.
    """
    trunk = {key: tensor for key, tensor in keys.trunk.items() if not key.endswith("num_batches_tracked")}
    first = trunk.get("0.weight" if keys.indexed else "conv1_1.weight")
    in_channels = first.shape[1] if first is not None and first.ndim == 4 else 3
    # The one that is asked for first: small parts of different architectures are the same.
    names = ARCHITECTURE_NAMES if arch is None else (arch, *ARCHITECTURE_NAMES)
    for blocks in range(5, 0, -1):
        for name in names:
            built = architecture(name, in_channels=in_channels, depth=blocks)
            expected = _expected(built, indexed=keys.indexed)
            if _differences(trunk, expected):
                continue
            if arch not in (None, name):
                raise WeightsError(f"{source} looks like {name}, not {arch}; use arch='{name}' or other weights")
            if blocks < depth:
                raise WeightsError(f"{source} holds only {blocks} of the {depth} blocks of {name} that are needed")
            return name, {paper: trunk[key] for key, (paper, _) in expected.items()}
    if arch is None:
        raise WeightsError(f"{source} matches none of the architectures ({', '.join(ARCHITECTURE_NAMES)})")
    wanted = _expected(architecture(arch, in_channels=in_channels), indexed=keys.indexed)
    raise WeightsError(f"{source} does not fit {arch}: {_differences(trunk, wanted)}; use other weights or arch")


def _recognise(tensors: dict[str, Tensor], source: str) -> RecognisedKeys:
    # torch.compile and, around the features alone, DataParallel put names into the middle of the keys.
    tensors = {
        key.replace("_orig_mod.", "").replace("features.module.", "features."): tensor
        for key, tensor in tensors.items()
    }
    anchors = [match for key in tensors if (match := _ANCHOR.fullmatch(key))]
    indexed = _INDEXED if anchors else _BARE_INDEXED
    anchors = anchors or [match for key in tensors if (match := _BARE_ANCHOR.fullmatch(key))]
    if not anchors:
        raise WeightsError(f"{source} holds no VGG trunk; its keys are {_some(tensors)}")
    if len(anchors) > 1:
        prefixes = ", ".join(f"'{match['prefix']}'" for match in anchors)
        raise WeightsError(
            f"{source} holds {len(anchors)} VGG trunks, under {prefixes}; save the one you want by itself"
        )
    prefix = anchors[0]["prefix"]
    inside = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    if "conv1_1.weight" in inside:
        layers = re.compile(r"(?:conv|bn)\d_\d\.\w+")
        trunk = {key: tensor for key, tensor in inside.items() if layers.fullmatch(key)}
        # A run keeps them in its head: head.fc6.weight.
        linear = re.compile(r"(?:.*\.)?(fc[678]\.(?:weight|bias))")
        classifier = {match[1]: tensor for key, tensor in tensors.items() if (match := linear.fullmatch(key))}
        # VGGEncoder keeps its buffers beside the trunk: encoder.mean, encoder.trunk.conv1_1.weight.
        beside = prefix.removesuffix("trunk.")
        own = {name: tensors[beside + name] for name in ("mean", "std") if beside + name in tensors}
        return RecognisedKeys("papers", False, trunk, classifier, own)
    trunk = {match[1]: tensor for key, tensor in inside.items() if (match := indexed.fullmatch(key))}
    classifier = {
        f"{_NAMED_LINEAR[layer]}.{kind}": tensor.flatten(1) if kind == "weight" else tensor
        for key, tensor in inside.items()
        for layer, _, kind in (key.rpartition("."),)
        if layer in _NAMED_LINEAR
    }
    if classifier:
        return RecognisedKeys("timm", True, trunk, classifier)
    numbered = {(int(m[1]), m[2]): tensor for key, tensor in inside.items() if (m := _LINEAR.fullmatch(key))}
    positions = sorted({position for position, _ in numbered})
    old = positions[:2] == [1, 4]
    if old or positions[:2] == [0, 3]:
        names = dict(zip(positions, ("fc6", "fc7", "fc8"), strict=False))
        classifier = {f"{names[at]}.{kind}": tensor for (at, kind), tensor in numbered.items() if at in names}
    return RecognisedKeys("torchvision", True, trunk, classifier, has_old_classifier_keys=old)


def _recognise_keras(tensors: dict[str, Tensor], source: str) -> RecognisedKeys:
    if "th_kernels" in source:
        raise WeightsError(f"{source} has Theano's mirrored kernels; use the file with 'tf_kernels' in its name")
    trunk: dict[str, Tensor] = {}
    classifier: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        layer, kind = key.split("/")
        suffix = "weight" if kind == "kernel" else "bias"
        if match := re.fullmatch(r"block(\d+)_conv(\d+)", layer):
            if tensor.ndim == 4 and tensor.shape[0] != tensor.shape[1]:
                raise WeightsError(
                    f"{source}: {key} is {list(tensor.shape)}, the order of Theano kernels, which are also mirrored; "
                    f"use the file with 'tf_kernels' in its name"
                )
            trunk[f"conv{match[1]}_{match[2]}.{suffix}"] = tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor
        elif layer in _KERAS_LINEAR:
            classifier[f"{_KERAS_LINEAR[layer]}.{suffix}"] = tensor.T if kind == "kernel" else tensor
    # Keras flattens pool5 as rows, columns, channels; torch as channels, rows, columns.
    fc6 = classifier.get("fc6.weight")
    if fc6 is not None:
        side = round((fc6.shape[1] / 512) ** 0.5)
        if side * side * 512 != fc6.shape[1]:
            raise WeightsError(f"{source}: fc1/kernel has {fc6.shape[1]} inputs, not 512 channels of a square map")
        classifier["fc6.weight"] = fc6.reshape(-1, side, side, 512).permute(0, 3, 1, 2).flatten(1)
    return RecognisedKeys("keras", False, trunk, classifier)


def _expected(built: Architecture, *, indexed: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Key in the file -> papers' key and shape, of all tensors that a trunk must have."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for position, layer in enumerate(built.layers):
        place = str(position) if indexed else layer.name
        channels = (layer.out_channels,)
        match layer.kind:
            case "conv":
                kernel = (layer.out_channels, layer.in_channels, layer.kernel_size, layer.kernel_size)
                shapes = {"weight": kernel, "bias": channels}
            case "bn":
                shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), channels)
            case _:
                continue
        expected |= {f"{place}.{name}": (f"{layer.name}.{name}", shape) for name, shape in shapes.items()}
    return expected


def _differences(trunk: dict[str, Tensor], expected: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    """What keeps a trunk from being the expected one, in words; empty if nothing does."""
    if missing := expected.keys() - trunk.keys():
        return f"{len(missing)} tensors are missing: {_some(missing)}"
    if unexpected := trunk.keys() - expected.keys():
        return f"{len(unexpected)} tensors do not belong to it: {_some(unexpected)}"
    for key, (paper, shape) in expected.items():
        if tuple(trunk[key].shape) != shape:
            return f"{key} ({paper}) is {list(trunk[key].shape)} instead of {list(shape)}"
        if not trunk[key].is_floating_point():
            return f"{key} ({paper}) is {trunk[key].dtype}, not floating point"
    return ""


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

"""What a checkpoint expects of its pictures, and how to tell.

Two families of VGG weights are around with the same layer shapes and, for the popular PyTorch ports, the same key
names: torchvision's (RGB in [0, 1], ImageNet mean and standard deviation) and the authors' own, trained in Caffe
(BGR in [0, 255], mean subtracted, not divided) with all their ports to Keras and PyTorch. The size of the weights
does not tell them apart: the first layers of both are of the same order. What does is that there are only two such
Caffe networks, VGG-16 and VGG-19, and fine-tuning hardly moves their first filter. So its published values serve as
a fingerprint, which also shows whether a port kept BGR or had turned the filters to RGB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

PreprocessingName = Literal["auto", "torchvision", "caffe", "none"]


@dataclass(frozen=True)
class Preprocessing:
    """Mean and standard deviation in RGB order for pictures in [0, 1]; `bgr` tells how the first filters are stored."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False


TORCHVISION = Preprocessing("torchvision: RGB, ImageNet mean and std", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The mean of ILSVRC-2014's training pictures as published with the models: 103.939, 116.779, 123.68 in BGR.
_CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
_CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
CAFFE_BGR = Preprocessing("Caffe: BGR 0-255 minus mean", _CAFFE_MEAN, _CAFFE_STD, bgr=True)
CAFFE_RGB = Preprocessing("Caffe: RGB 0-255 minus mean", _CAFFE_MEAN, _CAFFE_STD)
NONE = Preprocessing("none: RGB in [0, 1] as it is", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# conv1_1's first filter, [BGR, row, column], then its bias; None where no published listing shows the value.
# fmt: off
_CAFFE_VGG16 = (
    0.42947, 0.37347, -0.06136, 0.27477, 0.03868, -0.36722, -0.05747, -0.26225, -0.35010,
    0.55038, None, None, None, None, None, None, None, None,
    0.48002, None, None, None, None, None, None, None, None,
    0.73430,
)
_CAFFE_VGG19 = (
    0.34120, 0.33999, -0.04484, 0.23216, 0.08978, -0.30331, -0.07261, -0.24668, -0.33683,
    0.46418, 0.41811, -0.04807, 0.30511, 0.10385, -0.37314, -0.07647, -0.31071, -0.46454,
    0.39417, 0.37740, -0.04595, 0.26713, 0.09986, -0.34101, -0.07574, -0.28034, -0.41602,
    0.73018,
)
# fmt: on
# The two networks are 0.995 alike, an unrelated filter practically never 0.9 in 12 or 28 numbers.
_ALIKE = 0.98

_CAFFE_FILE_NAME = re.compile(r"00b39a1b|d01eb7cb|caffe", re.IGNORECASE)


def known_preprocessing(mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocessing:
    """The preprocessing with these numbers, for first filters in RGB order; named if it is a usual one."""
    for usual in (TORCHVISION, CAFFE_RGB, NONE):
        numbers = zip((*mean, *std), (*usual.mean, *usual.std), strict=False)
        if len(mean) == len(std) == 3 and all(abs(x - y) < 1e-6 for x, y in numbers):
            return Preprocessing(usual.name, mean, std)
    shown = ", ".join(f"{x:.4g}/{y:.4g}" for x, y in zip(mean, std, strict=True))
    return Preprocessing(f"mean/std {shown}", mean, std)


def is_caffe_file_name(name: str) -> bool:
    """Whether a file is called as the well-known ports are: vgg16-00b39a1b.pth, vgg19-d01eb7cb.pth, vgg16_caffe.pth."""
    return _CAFFE_FILE_NAME.search(name) is not None


def caffe_fingerprint(weight: Tensor, bias: Tensor) -> Preprocessing | None:
    """Recognises the Caffe-trained networks and what was fine-tuned from them, None for all others.

    Compared by the cosine, which a rescaled filter (as in the normalised networks of style transfer) leaves alone.

    Args:
        weight: conv1_1.weight, [64, 3, 3, 3].
        bias: conv1_1.bias, [64].
    """
    if tuple(weight.shape[1:]) != (3, 3, 3):
        return None
    best, found = _ALIKE, None
    for preprocessing in (CAFFE_BGR, CAFFE_RGB):
        planes = weight[0].flip(0) if preprocessing is CAFFE_RGB else weight[0]
        values = [*planes.flatten().tolist(), float(bias[0])]
        for reference in (_CAFFE_VGG16, _CAFFE_VGG19):
            known = [(value, other) for value, other in zip(values, reference, strict=True) if other is not None]
            likeness = _cosine(known)
            if likeness > best:
                best, found = likeness, preprocessing
    return found


def _cosine(pairs: list[tuple[float, float]]) -> float:
    product = sum(x * y for x, y in pairs)
    norms = sum(x * x for x, _ in pairs) * sum(y * y for _, y in pairs)
    return float(product / norms**0.5) if norms > 0 else 0.0

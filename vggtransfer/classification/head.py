"""What turns the last feature map into class scores."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from vggtransfer.classification.cosine import CosineClassifier
from vggtransfer.classification.head_names import HeadName
from vggtransfer.features.gem import GeM


def build_head(name: HeadName, *, in_channels: int, classes: int, dropout: float) -> nn.Sequential:
    """Builds a head from feature maps [batch, in_channels, height, width] to scores [batch, classes].

    Args:
        name: `"linear"`: global average pooling (Lin et al. 2014) and one linear layer. `"mlp"`: the same with a
            hidden layer of `in_channels` units. `"vgg"`: the original 7x7 pooling, fc6, fc7 and fc8 (Simonyan &
            Zisserman 2015), 4096 units each in fc6 and fc7. `"arcface"`: GeM pooling with a trainable exponent and the
            cosines to one direction per class, for embeddings.
        in_channels: Channels of the feature map.
        classes: Number of classes.
        dropout: Probability before each linear layer but the first of `"mlp"` and `"vgg"`; before the only one of
            `"linear"`, and before the cosines of `"arcface"`.
    """
    match name:
        case "linear":
            layers = {**_pooled(1), "dropout": nn.Dropout(dropout), "linear": nn.Linear(in_channels, classes)}
        case "mlp":
            layers = {
                **_pooled(1),
                "hidden": nn.Linear(in_channels, in_channels),
                "relu": nn.ReLU(inplace=True),
                "dropout": nn.Dropout(dropout),
                "linear": nn.Linear(in_channels, classes),
            }
        case "vgg":
            layers = {
                **_pooled(7),
                "fc6": nn.Linear(in_channels * 7 * 7, 4096),
                "relu6": nn.ReLU(inplace=True),
                "dropout6": nn.Dropout(dropout),
                "fc7": nn.Linear(4096, 4096),
                "relu7": nn.ReLU(inplace=True),
                "dropout7": nn.Dropout(dropout),
                "fc8": nn.Linear(4096, classes),
            }
        case "arcface":
            layers = {"pool": GeM(), "dropout": nn.Dropout(dropout), "cosine": CosineClassifier(in_channels, classes)}
    head = nn.Sequential(OrderedDict(layers))
    for module in head:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return head


def load_pretrained_layers(head: nn.Sequential, classifier: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copies fc6 and fc7 of a published classifier into a `"vgg"` head; returns the names of the layers filled.

    fc8 scores the published classes and stays new. Without classifier weights nothing is copied.
    """
    filled = tuple(name for name in ("fc6", "fc7") if f"{name}.weight" in classifier)
    for name in filled:
        head.get_submodule(name).load_state_dict({key: classifier[f"{name}.{key}"] for key in ("weight", "bias")})
    return filled


def _pooled(size: int) -> dict[str, nn.Module]:
    return {"pool": nn.AdaptiveAvgPool2d(size), "flatten": nn.Flatten()}

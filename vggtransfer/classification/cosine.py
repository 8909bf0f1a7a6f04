"""Classes as directions, and the margin that draws the pictures of a class together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COSINE_SCALE = 30.0
"""What cosines are multiplied by before the softmax, which could else not come near 0 and 1 (Wang et al. 2017)."""


class CosineClassifier(nn.Module):
    """Scores vectors [batch, in_features] by their cosine to one direction per class, times `COSINE_SCALE`.

    Computed in float32 whatever autocast says: bfloat16 tells no cosines above 0.996 apart.
    """

    def __init__(self, in_features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, in_features))
        nn.init.normal_(self.weight, std=in_features**-0.5)  # directions of length near 1, which few steps cannot upset

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            cosines = F.linear(F.normalize(x.float(), dim=1), F.normalize(self.weight.float(), dim=1))
            return COSINE_SCALE * cosines

    def extra_repr(self) -> str:
        return f"in_features={self.weight.shape[1]}, classes={self.weight.shape[0]}"


def with_margin(logits: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Makes the right class harder to reach: cos(angle + margin) in place of cos(angle) (ArcFace, Deng et al. 2019).

    Beyond angles of pi - margin, where that would rise again, it goes on falling as cos(angle) - margin sin(margin), as
    in the authors' program.

    Args:
        logits: Of `CosineClassifier`, [batch, classes].
        targets: Labels [batch].
        margin: In radians.
    """
    rows = torch.arange(len(targets), device=logits.device)
    cosine = (logits[rows, targets].float() / COSINE_SCALE).clamp(-1, 1)
    # The slope of the root is infinite at 0, which would make gradients NaN.
    sine = (1 - cosine.square()).clamp(min=1e-6).sqrt()
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    turned = torch.where(cosine > -math.cos(margin), turned, cosine - margin * math.sin(margin))
    return logits.float().index_put((rows, targets), COSINE_SCALE * turned)

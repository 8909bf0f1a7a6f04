"""TotalVariation: how much neighbouring pixels differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from vggtransfer.errors import OptionError
from vggtransfer.perceptual.feature_loss import FeatureLoss, Reduction
from vggtransfer.perceptual.precision import in_float32
from vggtransfer.perceptual.trunk import PICTURES


class TotalVariation(FeatureLoss):
    """Total variation, anisotropic: smooth pictures have less (Rudin et al. 1992; Johnson et al. 2016, section 3.2).

    The sum over horizontal and vertical neighbours of |d| for `"l1"` or d^2 for `"l2"`, divided by the number of values
    of a picture, so that it does not depend on the size. It looks at `x` alone: `loss(x)`; a target is ignored.

    Args:
        distance: How differences count.
        reduction: `"mean"` or `"sum"` over the batch, or `"none"` for one value per picture.
    """

    needs_target = False

    def __init__(self, *, distance: Literal["l1", "l2"] = "l1", reduction: Reduction = "mean") -> None:
        if distance not in ("l1", "l2"):
            raise OptionError(f"distance={distance} is not possible: use l1 or l2")
        super().__init__((PICTURES,), trunk=None, reduction=reduction, same_size=False)
        self.distance = distance

    def remember(self, _taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def compare(self, taps: Mapping[str, Tensor], _target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with in_float32(taps):
            x = taps[PICTURES].float()
            across, down = (d.abs() if self.distance == "l1" else d.square() for d in (x.diff(dim=3), x.diff(dim=2)))
            return {PICTURES: (across.sum(dim=(1, 2, 3)) + down.sum(dim=(1, 2, 3))) / x[0].numel()}

    def extra_repr(self) -> str:
        return f"distance={self.distance!r}"

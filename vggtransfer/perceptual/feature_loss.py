"""What all losses have in common: one call for two pictures, targets that are remembered, values per layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from vggtransfer.errors import OptionError
from vggtransfer.perceptual.shared_pass import SharedPass
from vggtransfer.perceptual.trunk import LossTrunk

Reduction = Literal["mean", "sum", "none"]


class FeatureLoss(nn.Module):
    """A distance between two batches of pictures, as a sum over layers.

    `loss(x, y)` compares; `loss.set_target(y)` followed by `loss(x)` does the same and computes what there is to know
    of `y` only once. A target without `requires_grad` that is handed over again, the same tensor unchanged, is
    recognised, so `loss(x, y)` in a loop is as fast; only do not write to it behind torch's back, through `.data` or
    numpy. Gradients reach `x`, and `y` where it requires them.

    Args:
        layers: Taps looked at. The pictures themselves are the tap `"pictures"`.
        trunk: Where taps come from; None for a loss that looks at the pictures only.
        reduction: `"none"` gives one value per picture, `"mean"` and `"sum"` are over the batch.
        same_size: Whether picture and target must have the same height and width.
    """

    needs_target = True

    def __init__(
        self, layers: tuple[str, ...], *, trunk: LossTrunk | None, reduction: Reduction, same_size: bool = True
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise OptionError(f"reduction={reduction} is not possible: use mean, sum or none")
        self.layers = layers
        self.trunk = trunk
        self.reduction = reduction
        self.same_size = same_size
        self._pass = SharedPass([self])

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns the distance: a scalar, or [batch] for `reduction="none"`.

        Args:
            x: Pictures [batch, channels, height, width], RGB, in [0, 1].
            y: Targets, likewise; None for those of `set_target`.

        Raises:
            InputError: Pictures of the wrong type, shape or size; on the first call also of the wrong range or with
                NaN.
            OptionError: No `y`, and no target was set.
        """
        return self.reduced(self.layer_values(x, y))

    def layer_values(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Returns what each layer adds to the distance, [batch] each, weighted: they sum to the distance."""
        (taps, target), *_ = self._pass.inputs(x, y)
        return self.compare(taps, target)

    def set_target(self, y: Tensor) -> None:
        """Computes and keeps what `loss(x)` compares with, until another target is set; no gradients reach `y`."""
        self._pass.set_target(y)

    def reduced(self, values: Mapping[str, Tensor]) -> Tensor:
        """Sums the layers' values and reduces over the batch as the loss was told."""
        total = sum(values.values(), start=next(iter(values.values())).new_zeros(()))
        match self.reduction:
            case "mean":
                return total.mean()
            case "sum":
                return total.sum()
        return total

    def remember(self, taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what `compare` needs of the target, one tensor per layer."""
        return {name: taps[name] for name in self.layers}

    def compare(self, taps: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weighted distance of each layer, [batch].

        Args:
            taps: Maps of the pictures, from the trunk.
            target: What `remember` returned for the target.
        """
        raise NotImplementedError

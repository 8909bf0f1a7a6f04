"""PerceptualSuite: any losses together, with one run of the trunk per picture."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from vggtransfer.errors import OptionError, did_you_mean
from vggtransfer.perceptual.feature_loss import FeatureLoss
from vggtransfer.perceptual.shared_pass import SharedPass
from vggtransfer.perceptual.trunk import FrozenWeights, LossTrunk


class PerceptualSuite(nn.Module):
    """A weighted sum of losses that share one run of the trunk.

    Losses whose trunks have the same weights, normalisation and pooling share one trunk from then on; those of DISTS,
    which pools differently, and of LPIPS 0.0, which normalises differently, run by themselves.

    Targets are remembered as by a single loss (`FeatureLoss`), and may differ: for style transfer

        suite = PerceptualSuite({"content": PerceptualLoss({"relu4_2": 1.0}), "style": StyleLoss()}, weights=[1, 1e3])
        suite.set_target(photograph, losses=["content"])
        suite.set_target(painting, losses=["style"])
        suite(picture).backward()

    Args:
        losses: The losses, under names; a sequence names them by their class: `"LPIPS"`, `"StyleLoss"`.
        weights: What each value is multiplied by; None is 1 for each.

    Raises:
        OptionError: No losses, the same name twice, or another number of weights.
    """

    def __init__(
        self, losses: Sequence[FeatureLoss] | Mapping[str, FeatureLoss], *, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        pairs = losses.items() if isinstance(losses, Mapping) else [(type(loss).__name__, loss) for loss in losses]
        named = dict(pairs)
        if not named or len(named) < len(losses):
            raise OptionError(
                "losses must hold at least one loss; two of the same class need names: {'a': ..., 'b': ...}"
            )
        self.losses = nn.ModuleDict(named)
        self.weights = tuple(float(weight) for weight in ([1.0] * len(named) if weights is None else weights))
        if len(self.weights) != len(named):
            raise OptionError(f"weights={list(self.weights)} for {len(named)} losses: {', '.join(named)}")
        _share_trunks(list(named.values()))
        self._pass = SharedPass(list(named.values()))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns the weighted sum of all losses, a scalar; those that give one value per picture are averaged.

        Args:
            x: Pictures [batch, channels, height, width], RGB, in [0, 1].
            y: Targets, likewise; None for those of `set_target`.

        Raises:
            InputError: Pictures that cannot be used or compared, see `FeatureLoss.forward`.
            OptionError: No `y`, and a loss without a target.
        """
        return self.weighted(self.values(x, y))

    def values(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Returns the value of each loss by its name, unweighted, reduced as that loss was told."""
        return {
            name: loss.reduced(loss.compare(taps, target))
            for (name, loss), (taps, target) in zip(self._named(), self._pass.inputs(x, y), strict=True)
        }

    def weighted(self, values: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted sum of what `values` returned, a scalar."""
        parts = [weight * value.mean() for weight, value in zip(self.weights, values.values(), strict=True)]
        return sum(parts[1:], start=parts[0])

    def set_target(self, y: Tensor, *, losses: Iterable[str] | None = None) -> None:
        """Computes and keeps what `suite(x)` compares with, until another target is set.

        Args:
            y: Pictures.
            losses: Names of the losses it is for; None for all.

        Raises:
            OptionError: A name that no loss has.
        """
        names = list(self.losses)
        positions = []
        for name in names if losses is None else losses:
            if name not in names:
                raise OptionError(f"losses: there is no '{name}'{did_you_mean(name, names)}; known: {', '.join(names)}")
            positions.append(names.index(name))
        self._pass.set_target(y, positions)

    def _named(self) -> list[tuple[str, FeatureLoss]]:
        return [(name, loss) for name, loss in self.losses.items() if isinstance(loss, FeatureLoss)]


def _share_trunks(losses: Sequence[FeatureLoss]) -> None:
    """Leaves one copy of equal weights, and one trunk of those that compute the same."""
    weights: dict[str, FrozenWeights] = {}
    trunks: dict[Hashable, LossTrunk] = {}
    for loss in losses:
        if loss.trunk is not None:
            loss.trunk.weights = weights.setdefault(loss.trunk.digest, loss.trunk.weights)
            loss.trunk = trunks.setdefault(loss.trunk.identity, loss.trunk)

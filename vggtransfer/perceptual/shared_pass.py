"""One run of the trunk per picture for any number of losses, and the memory of targets."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggtransfer.encoder.input_check import InputShape
from vggtransfer.errors import OptionError
from vggtransfer.perceptual.picture_check import check_pair, check_pictures
from vggtransfer.perceptual.trunk import PICTURES, LossTrunk, Taps

if TYPE_CHECKING:
    from vggtransfer.perceptual.feature_loss import FeatureLoss

Target = dict[str, Tensor]


class SharedPass:
    """Runs each trunk once per batch for all losses that share it.

    Args:
        losses: The losses; those with the same trunk object share its run.
    """

    def __init__(self, losses: Sequence[FeatureLoss]) -> None:
        self._losses = list(losses)
        self._checked = False
        self._fixed: list[tuple[Target, torch.Size] | None] = [None] * len(losses)
        self._recent = RecentTarget()

    def inputs(self, x: Tensor, y: Tensor | None = None) -> list[tuple[Taps, Target]]:
        """Returns, for each loss, the maps of the pictures and what there is to compare them with.

        Args:
            x: Pictures [batch, channels, height, width].
            y: Their targets; None for those of `set_target`.

        Raises:
            InputError: Pictures that cannot be used or compared.
            OptionError: Without y, a loss that has no target yet.
        """
        self._check(x, "x", self._losses)
        if y is None:
            targets = [self._fixed_target(position, x) for position in range(len(self._losses))]
        else:
            check_pair(x, y.shape, same_size=any(loss.same_size for loss in self._losses))
            targets = self._targets(y)
        self._checked = True
        taps = self._taps(x, self._losses)
        return list(zip(taps, targets, strict=True))

    def set_target(self, y: Tensor, positions: Iterable[int] | None = None) -> None:
        """Keeps what is needed of a target for some of the losses, or all of them."""
        chosen = range(len(self._losses)) if positions is None else list(positions)
        losses = [self._losses[position] for position in chosen]
        check_pictures_for(losses, y, name="the target", values=True)
        with torch.inference_mode(False), torch.no_grad():
            taps = self._taps(y, losses)
            for position, loss, maps in zip(chosen, losses, taps, strict=True):
                self._fixed[position] = (loss.remember(maps), y.shape)

    def _fixed_target(self, position: int, x: Tensor) -> Target:
        loss, kept = self._losses[position], self._fixed[position]
        if not loss.needs_target:
            return {}
        if kept is None:
            raise OptionError("there is nothing to compare with: give a target y, or call set_target(y) first")
        target, shape = kept
        check_pair(x, shape, same_size=loss.same_size)
        return target

    def _targets(self, y: Tensor) -> list[Target]:
        if torch.is_grad_enabled() and y.requires_grad:
            self._check(y, "y", self._losses)
            taps = self._taps(y, self._losses)
            return [loss.remember(maps) for loss, maps in zip(self._losses, taps, strict=True)]
        found = self._recent.find(y)
        if found is None:
            self._check(y, "y", self._losses)
            # Maps made in inference mode could not be compared with those of pictures that train.
            with torch.inference_mode(False), torch.no_grad():
                taps = self._taps(y, self._losses)
                found = [loss.remember(maps) for loss, maps in zip(self._losses, taps, strict=True)]
            self._recent.keep(y, found)
        return found

    def _taps(self, pictures: Tensor, losses: Sequence[FeatureLoss]) -> list[Taps]:
        trunks: dict[int, tuple[LossTrunk, set[str]]] = {}
        for loss in losses:
            if loss.trunk is not None:
                trunks.setdefault(id(loss.trunk), (loss.trunk, set()))[1].update(loss.layers)
        runs = {key: trunk.taps(pictures, layers) for key, (trunk, layers) in trunks.items()}
        return [{PICTURES: pictures} if loss.trunk is None else runs[id(loss.trunk)] for loss in losses]

    def _check(self, pictures: Tensor, name: str, losses: Sequence[FeatureLoss]) -> None:
        check_pictures_for(losses, pictures, name=name, values=not self._checked)


def check_pictures_for(losses: Sequence[FeatureLoss], pictures: Tensor, *, name: str, values: bool) -> None:
    """Checks pictures against what each of some losses can take; see `check_pictures`."""
    for loss in losses:
        if loss.trunk is None:
            shape = InputShape(channels=pictures.shape[1] if pictures.dim() == 4 else 3, poolings=0, minimum=1)
        else:
            named = [layer for layer in loss.layers if layer != PICTURES]
            shape = loss.trunk.shape_for(named)
        check_pictures(pictures, name=name, shape=shape, values=values)
        values = False


class RecentTarget:
    """What was computed of the last target, as long as that tensor lives and is not written to.

    Writing past autograd's count of versions, through `.data` or numpy, goes unnoticed.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self, _gone: object = None) -> None:
        """Lets go of everything."""
        self._tensor: weakref.ref[Tensor] | None = None
        self._state: tuple[object, ...] = ()
        self._targets: list[Target] | None = None

    def find(self, y: Tensor) -> list[Target] | None:
        """Returns what was kept of this very tensor, None if it is another one or was written to."""
        same = self._tensor is not None and self._tensor() is y and _state(y) == self._state
        return self._targets if same else None

    def keep(self, y: Tensor, targets: list[Target]) -> None:
        """Keeps this until another target comes or the tensor dies."""
        self.forget()
        if y.is_inference():  # counts no versions, so nobody can tell whether it was written to
            return
        self._tensor = weakref.ref(y, self.forget)
        self._state = _state(y)
        self._targets = targets

    def __deepcopy__(self, _memo: object) -> RecentTarget:
        return RecentTarget()

    def __reduce__(self) -> tuple[type[RecentTarget], tuple[()]]:
        return RecentTarget, ()


def _state(y: Tensor) -> tuple[object, ...]:
    """Changes when y is written to, or when its maps would be computed in another type."""
    kind = y.device.type
    version = None if y.is_inference() else y._version
    return version, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

"""What takes the place of a model and its pictures while a frozen part is spared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from vggtransfer.data.loader import Key
from vggtransfer.features.cached_pictures import CachedPictures
from vggtransfer.features.frozen_prefix import LayeredModel, Suffix, prefix_digest


@dataclass(frozen=True)
class CachedStage:
    """What takes the place of the model and its pictures while a stage lasts.

    Attributes:
        length: How many layers of the model have been computed already.
        digest: Of these layers, see `prefix_digest`.
        train: Training pictures.
        validation: Validation pictures.
    """

    length: int
    digest: str
    train: CachedPictures
    validation: CachedPictures

    def fits(self, model: LayeredModel) -> bool:
        """Whether a model has the frozen part that the maps come from."""
        return prefix_digest(model, self.length) == self.digest

    def leaves(self, layer: str, model: LayeredModel) -> bool:
        """Whether a layer of a model is among those that are left to compute."""
        return layer in [name for name, _ in model.layers()[self.length :]]

    def rest_of(self, model: LayeredModel) -> nn.Module:
        """The layers that take the maps; the model's own, not copies."""
        return Suffix(model, self.length)

    def train_batches(self, batches: Sequence[list[Key]]) -> Iterator[list[Tensor]]:
        """Yields (maps, labels, indices) for batches of (epoch, index)."""
        return self.train.batches(batches)

    def validation_batches(self, batches: Sequence[list[Key]]) -> Iterator[list[Tensor]]:
        """Yields (maps, labels, indices) for batches of (epoch, index)."""
        return self.validation.batches(batches)

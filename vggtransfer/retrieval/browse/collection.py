"""What the pages need of an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from vggtransfer.retrieval.index_items import Item
    from vggtransfer.retrieval.neighbours import DuplicateGroup, Neighbour


class Collection(Protocol):
    """The part of `ImageIndex` that is shown; see there for what the methods do."""

    @property
    def path(self) -> Path: ...

    @property
    def data(self) -> Path: ...

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def labels(self) -> dict[str, int]: ...

    def item(self, id: int) -> Item: ...  # noqa: A002

    def embed(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]: ...

    def search(self, query: NDArray[np.float32], *, k: int, label: str | None) -> list[Neighbour]: ...

    def neighbours_of(self, id: int, *, k: int, label: str | None) -> list[Neighbour]: ...  # noqa: A002

    def duplicates(self, *, threshold: float | None) -> list[DuplicateGroup]: ...

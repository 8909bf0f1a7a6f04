"""A folder of pictures that can be searched by picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from vggtransfer.retrieval.index_kind import KindName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from vggtransfer.retrieval.embedder import Embedder

Query: TypeAlias = "str | os.PathLike[str] | Image.Image | Tensor | NDArray[np.float32]"


class Item(NamedTuple):
    """One picture of the collection.

    Attributes:
        id: Its number, which no other picture ever gets, whatever is added or removed.
        path: Its file.
        label: Its class folder, or empty.
        sha256: Of its file when it was embedded, 64 hexadecimal digits.
        bytes: Size of its file then.
    """

    id: int
    path: Path
    label: str
    sha256: str
    bytes: int


class Neighbour(NamedTuple):
    """A picture found; score is the cosine of the two (whitened) embeddings, in [-1, 1], 1 for the same picture."""

    id: int
    path: Path
    label: str
    score: float


class ImageIndex:
    """An index directory, opened. Made by `ImageIndex.build` and `ImageIndex.open`.

    Attributes:
        path: The directory.
        data: The folder of the pictures; paths in the index are below it.
    """

    path: Path
    data: Path

    @classmethod
    def build(
        cls,
        data: str | os.PathLike[str],
        *,
        out: str | os.PathLike[str],
        embedder: Embedder | None = None,
        whiten: int | None = None,
        kind: KindName = "auto",
        recall: float = 0.95,
        max_memory: float | None = None,
        batch_size: int = 64,
        workers: int | None = None,
    ) -> ImageIndex:
        """Embeds all pictures below a folder and writes an index of them (see `open` for the rest)."""
        raise NotImplementedError

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, embedder: Embedder | None = None, device: str = "auto"
    ) -> ImageIndex:
        """Opens an index after checking the SHA-256 of each of its files.

        Args:
            path: The index directory.
            embedder: Of the pictures to be searched for; default: the one that `index.yaml` tells of, loaded when a
                picture first needs it.
            device: Where that one computes.

        Raises:
            IndexDamagedError: A file is not what it was when written.
            OptionError: The embedder is not the one that embedded the collection.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """How many pictures there are."""
        raise NotImplementedError

    @property
    def items(self) -> Sequence[Item]:
        """All pictures, in the order of their ids; a sequence that makes each Item when it is asked for."""
        raise NotImplementedError

    @property
    def labels(self) -> dict[str, int]:
        """How many pictures each label has, sorted by label; those without one under ''."""
        raise NotImplementedError

    @property
    def description(self) -> dict[str, Any]:
        """What `index.yaml` says: encoder, pooling, kind, FAISS factory, versions, files; in plain types."""
        raise NotImplementedError

    def item(self, id: int) -> Item:  # noqa: A002
        """One picture by its id; OptionError if there is none."""
        raise NotImplementedError

    def search(self, query: Query, *, k: int = 10, label: str | None = None) -> list[Neighbour]:
        """The k nearest pictures, the nearest first; fewer if there are no more.

        Args:
            query: A picture as a path, PIL image or tensor [3, height, width] in [0, 1]; or the embedding of one as a
                vector [dimension of the embedder].
            k: How many.
            label: Only pictures with this label.
        """
        raise NotImplementedError

    def search_many(
        self, queries: Sequence[Query] | NDArray[np.float32], *, k: int = 10, label: str | None = None
    ) -> list[list[Neighbour]]:
        """As `search`, for many pictures or vectors [queries, dimension] at once."""
        raise NotImplementedError

    def neighbours_of(self, id: int, *, k: int = 10, label: str | None = None) -> list[Neighbour]:  # noqa: A002
        """The k pictures nearest to one of the collection, without itself; needs no encoder."""
        raise NotImplementedError

    def vectors(self, ids: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Unit vectors as the search compares them (whitened), [ids, dimension]; of all items in their order for None."""
        raise NotImplementedError

    def duplicates(self, *, threshold: float = 0.95) -> list[DuplicateGroup]:
        """Groups of pictures that are the same, byte by byte, or nearly so (cosine at least `threshold`)."""
        raise NotImplementedError

    def add(self, paths: Sequence[str | os.PathLike[str]], *, label: str | None = None) -> Any:
        """Adds pictures."""
        raise NotImplementedError

    def remove(self, paths_or_ids: Sequence[str | os.PathLike[str] | int]) -> Any:
        """Removes pictures."""
        raise NotImplementedError

    def sync(self) -> Any:
        """Brings the index up to date with its folder."""
        raise NotImplementedError

    def verify(self) -> None:
        """Checks every file and the agreement of all parts."""
        raise NotImplementedError


class DuplicateGroup(NamedTuple):
    """Pictures that are the same or nearly so.

    Attributes:
        kind: `exact` if all files are equal byte by byte, else `near`.
        items: Two or more, in the order of their ids.
        score: The least cosine that holds the group together; 1 for exact ones.
    """

    kind: Literal["exact", "near"]
    items: tuple[Item, ...]
    score: float

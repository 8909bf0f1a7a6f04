"""What a search elsewhere than in the index directory has to offer: the seam between collections and databases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vggtransfer.errors import OptionError, VGGTransferError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vggtransfer.retrieval.whitening import Whitening


class StoreError(VGGTransferError):
    """A database cannot be reached, refuses something, or does not hold what is looked for."""


class StoredPicture(NamedTuple):
    """What a store knows of a picture beside its vector.

    Attributes:
        id: As in the index.
        name: Its path, below the data folder or absolute; bytes that are no UTF-8 as escapes.
        label: Its label, or empty; likewise.
        sha256: Of its file when it was embedded.
        bytes: Size of its file then.
    """

    id: int
    name: str
    label: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class About:
    """How the vectors of a store were made.

    Attributes:
        owner: Token of the index directory that it follows.
        complete: Whether all pictures are there.
        data: The folder of the pictures, as the owner sees it.
        embedding: What `index.yaml` says of the encoder.
        whitening: Of the vectors, or None.
    """

    owner: str
    complete: bool
    data: str
    embedding: dict[str, Any]
    whitening: Whitening | None

    @property
    def space(self) -> tuple[str, str]:
        """Vectors may be compared if these agree."""
        return self.embedding["digest"], "" if self.whitening is None else self.whitening.digest


class VectorStore(Protocol):
    """One collection of unit vectors with their pictures in a database; every failure is a `StoreError`."""

    @property
    def address(self) -> str:
        """For messages."""

    def about(self) -> About | None:
        """What is there; None if nothing is."""

    def create(self, about: About, *, dimension: int) -> None:
        """Makes an empty collection in the place of what is there."""

    def describe(self, about: About) -> None:
        """Replaces what is said of the collection; its vectors stay."""

    def pictures(self) -> Iterator[StoredPicture]:
        """All of them, in any order."""

    def put(self, pictures: Sequence[StoredPicture], vectors: NDArray[np.float32]) -> None:
        """Adds pictures with their vectors [pictures, dimension], or replaces those of the same id."""

    def delete(self, ids: Sequence[int]) -> None:
        """Removes pictures; ids that are not there are none's fault."""

    def vectors(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The vectors [ids, dimension] of pictures that are there."""

    def search(
        self, queries: NDArray[np.float32], *, k: int, label: str | None
    ) -> list[list[tuple[StoredPicture, float]]]:
        """For each query [queries, dimension] the k pictures with the largest cosine, and it, the best first."""


def open_store(address: str, name: str) -> VectorStore:
    """Connects to a collection, which need not exist.

    Args:
        address: `milvus+http://HOST:PORT` or `milvus+https://...`.
        name: Of the collection; what is no letter, digit or underscore becomes one.

    Raises:
        OptionError: The address is of no known kind.
        StoreError: pymilvus is not installed, or nobody answers there.
    """
    kind, plus, rest = address.partition("+")
    if kind != "milvus" or not plus or not rest.startswith(("http://", "https://")):
        raise OptionError(f"--store {address}: write it as milvus+http://HOST:19530")
    try:
        from vggtransfer.retrieval.milvus_store import MilvusStore
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pymilvus":
            raise
        text = f"--store {address} needs pymilvus, which is not installed: pip install 'vggtransfer[milvus]'"
        raise StoreError(text) from None
    return MilvusStore(rest, collection_name(name))


def collection_name(name: str) -> str:
    """What a database accepts as a name of a collection: letters, digits and underscores, no digit first."""
    plain = "".join(one if one.isascii() and one.isalnum() else "_" for one in name)
    return f"_{plain}" if not plain or plain[0].isdigit() else plain

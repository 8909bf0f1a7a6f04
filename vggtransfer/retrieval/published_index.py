"""A collection in a database, searched by whoever knows its address; no index directory is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import InputError, OptionError
from vggtransfer.retrieval.expansion import expand_queries
from vggtransfer.retrieval.index_encoder import encoder_of
from vggtransfer.retrieval.neighbours import Neighbour
from vggtransfer.retrieval.refinement import Refinement
from vggtransfer.retrieval.vector_store import StoredPicture, StoreError, VectorStore, open_store

if TYPE_CHECKING:
    from vggtransfer.retrieval.embedder import Embedder

_ALPHA = 3.0


class PublishedIndex:
    """The search side of what `vggtransfer.retrieval.publishing.publish` wrote.

    Args:
        store: It.
        weights: Name or path of the encoder's weights or model, if they are not where the owner of the index had them.
        device: Where the encoder computes.

    Attributes:
        about: How the vectors were made.

    Raises:
        StoreError: There is none, or it is not complete.
    """

    def __init__(self, store: VectorStore, *, weights: str | None = None, device: str = "auto") -> None:
        about = store.about()
        if about is None or not about.complete:
            state = "there is no such collection" if about is None else "the collection is still being published"
            raise StoreError(f"{store.address}: {state}; `vggtransfer index sync INDEX --store ADDRESS` publishes one")
        self.about = about
        self._store = store
        self._weights, self._device = weights, device
        self._embedder: Embedder | None = None

    @property
    def embedder(self) -> Embedder:
        """The network that made the vectors, without the whitening; see `ImageIndex.embedder`."""
        if self._embedder is None:
            place = Path(self._store.address)
            self._embedder = encoder_of(self.about.embedding, place, device=self._device, weights=self._weights)
        return self._embedder

    def search_many(
        self,
        queries: NDArray[np.float32],
        *,
        k: int = 10,
        label: str | None = None,
        expand: int = 0,
        augment: int = 0,
        rerank: int = 0,
    ) -> list[list[Neighbour]]:
        """As `ImageIndex.search_many`, by embeddings [queries, dimension of the embedder]."""
        if k < 1:
            raise OptionError(f"k={k} is not possible: it must be at least 1")
        features = self.about.embedding["dimension"]
        if queries.ndim != 2 or queries.shape[1] != features:
            raise InputError(f"vectors of shape {list(queries.shape)} cannot be searched for; [n, {features}] can")
        whitening = self.about.whitening
        vectors = queries.astype(np.float32, copy=False) if whitening is None else whitening(queries)
        if expand:
            vectors = self._expanded(vectors, expand)
        refinement = Refinement(augment, rerank)
        found = self._store.search(vectors, k=max(k, refinement.depth), label=label)
        if label is not None and not any(found):
            raise OptionError(f"no picture of {self._store.address} has the label '{label}'")
        if refinement:
            found = [self._refined(query, hits, refinement) for query, hits in zip(vectors, found, strict=True)]
        return [[self._neighbour(picture, score) for picture, score in hits[:k]] for hits in found]

    def neighbours_of(self, id: int, *, k: int = 10, label: str | None = None) -> list[Neighbour]:  # noqa: A002
        """As `ImageIndex.neighbours_of`."""
        (found,) = self._store.search(self._store.vectors([id]), k=k + 1, label=label)
        return [self._neighbour(picture, score) for picture, score in found if picture.id != id][:k]

    def _expanded(self, vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        if count < 1:
            raise OptionError(f"expand={count} is not possible: it must be at least 0")
        found = self._store.search(vectors, k=count, label=None)
        ids = [[picture.id for picture, _ in hits] for hits in found]
        fewest = min(map(len, ids))
        different = sorted({one for of_query in ids for one in of_query})
        places = np.searchsorted(different, [of_query[:fewest] for of_query in ids])
        return expand_queries(vectors, self._store.vectors(different), places, count=fewest, alpha=_ALPHA)

    def _refined(
        self, query: NDArray[np.float32], hits: list[tuple[StoredPicture, float]], refinement: Refinement
    ) -> list[tuple[StoredPicture, float]]:
        def nearest(ids: NDArray[np.int64]) -> NDArray[np.int64]:
            near = self._store.search(self._store.vectors(ids.tolist()), k=refinement.augment + 1, label=None)
            return np.array([[picture.id for picture, _ in of_one] for of_one in near], np.int64)

        order = refinement.order(
            query,
            np.array([picture.id for picture, _ in hits], np.int64),
            vectors_of=lambda ids: self._store.vectors(ids.tolist()),
            nearest=nearest,
        )
        return [hits[place] for place in order]

    def _neighbour(self, picture: StoredPicture, score: float) -> Neighbour:
        return Neighbour(picture.id, Path(self.about.data) / picture.name, picture.label, score)


def open_published(
    name: str | Path, address: str, *, weights: str | None = None, device: str = "auto"
) -> PublishedIndex:
    """Opens a collection by its address.

    Args:
        name: Of the collection: that of the index directory it follows, or its path.
        address: Such as `milvus+http://HOST:19530`.
        weights: See `PublishedIndex`.
        device: See `PublishedIndex`.
    """
    return PublishedIndex(open_store(address, Path(name).name), weights=weights, device=device)

"""An index that is open for searching."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import InputError
from vggtransfer.retrieval.index_encoder import check_encoder, encoder_of
from vggtransfer.retrieval.index_folder import IndexFolder
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.index_search import IndexSearch, Items
from vggtransfer.retrieval.index_state import IndexState, read_state
from vggtransfer.retrieval.neighbours import DuplicateGroup, Neighbour
from vggtransfer.retrieval.refinement import Refinement
from vggtransfer.retrieval.whitening import unit_rows

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from vggtransfer.retrieval.embedder import Embedder

Query: TypeAlias = "str | os.PathLike[str] | Image.Image | Tensor | NDArray[np.float32]"


class OpenIndex:
    """The part of `ImageIndex` that changes nothing. Searching from several threads is safe.

    Attributes:
        path: The directory.
    """

    def __init__(self, state: IndexState, embedder: Embedder | None, *, device: str, weights: str | None) -> None:
        self.path = state.folder.path
        self._search = IndexSearch(state)
        self._embedder = embedder
        self._device, self._weights = device, weights
        self._embedding = threading.Lock()

    @property
    def _state(self) -> IndexState:
        return self._search.state

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        embedder: Embedder | None = None,
        weights: str | None = None,
        device: str = "auto",
    ) -> Self:
        """Opens an index after checking the SHA-256 of each of its files.

        Args:
            path: The index directory.
            embedder: Of the pictures to be searched for; None: the one that `index.yaml` tells of, loaded when a
                picture first needs it.
            weights: Name or path of that one's weights or model, if they are not where they were.
            device: Where that one computes.

        Raises:
            OptionError: There is no index, or the embedder is not the one that embedded the collection.
            IndexDamagedError: A file is not what it was when written.
        """
        state = read_state(IndexFolder(Path(path).expanduser()))
        if embedder is not None:
            embedder = embedder.with_whitening(None)
            check_encoder(embedder, state.description["embedding"], state.folder.path)
        return cls(state, embedder, device=device, weights=weights)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self._state.table)

    @property
    def data(self) -> Path:
        """The folder of the pictures."""
        return self._state.data

    @property
    def items(self) -> Sequence[Item]:
        """All pictures, in the order of their ids; each Item is made when it is asked for."""
        return Items(self._state)

    @property
    def labels(self) -> dict[str, int]:
        """How many pictures each label has, sorted by label; those without one under ''."""
        return self._search.labels

    @property
    def description(self) -> dict[str, Any]:
        """What `index.yaml` says, in plain types: pictures, embedding, index, wanted, versions, files and digests."""
        return self._state.description

    @property
    def bad_files(self) -> dict[str, str]:
        """Files that gave no vector, and why, by their names below the data folder."""
        return {bad.name: bad.reason for bad in self._state.bad}

    def item(self, id: int) -> Item:  # noqa: A002
        """One picture by its id; OptionError if there is none."""
        return self._state.table.item(self._search.position(id), self.data)

    def search(self, query: Query, *, k: int = 10, label: str | None = None) -> list[Neighbour]:
        """Finds the k nearest pictures, the nearest first; fewer if there are no more.

        Args:
            query: A picture as a path, PIL image or tensor [3, height, width] in [0, 1], which is resized and cropped
                as files are unless it has the size of the network's pictures; or the embedding of one, a vector
                [dimension of the embedder].
            k: How many.
            label: Only pictures with this label.

        Raises:
            OptionError: k is below 1, no picture has the label, or the encoder is not that of the index.
            BadImageError: The file cannot be decoded.
            InputError: The query is none of these.
        """
        return self.search_many([query], k=k, label=label)[0]

    def search_many(
        self,
        queries: Sequence[Query] | NDArray[np.float32],
        *,
        k: int = 10,
        label: str | None = None,
        expand: int = 0,
        augment: int = 0,
        rerank: int = 0,
    ) -> list[list[Neighbour]]:
        """As `search`, for many pictures, or vectors [queries, dimension of the embedder], at once.

        Args:
            queries: Pictures, or vectors.
            k: How many neighbours of each.
            label: Only pictures with this label.
            expand: Search once more with each query and so many of its neighbours together: alpha query expansion,
                Radenovic et al. 2018, section 5.4, with alpha = 3. Scores are those of the second search.
            augment: Order the best 100 by their likeness to the query after each was joined with its own nearest
                pictures, so many in all (database-side augmentation, `vggtransfer.retrieval.expansion`).
            rerank: Order so many of the best by k-reciprocal re-ranking (`vggtransfer.retrieval.reranking`). Scores are
                still the cosines, which need not fall then.
        """
        embeddings = queries if isinstance(queries, np.ndarray) else self.embed(queries)
        features = self._state.vectors.embeddings.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != features:
            raise InputError(f"vectors of shape {list(embeddings.shape)} cannot be searched for; [n, {features}] can")
        if not np.isfinite(embeddings).all():
            raise InputError("vectors with NaN or infinity cannot be searched for")
        whitened = self._state.vectors.of(unit_rows(embeddings.astype(np.float32, copy=False)))
        if expand:
            whitened = self._search.expanded(whitened, count=expand)
        return self._search.neighbours(whitened, k=k, label=label, refinement=Refinement(augment, rerank))

    def neighbours_of(self, id: int, *, k: int = 10, label: str | None = None) -> list[Neighbour]:  # noqa: A002
        """Finds the k pictures nearest to one of the collection, without itself; needs no encoder."""
        found = self._search.neighbours(self.vectors([id]), k=k + 1, label=label)[0]
        return [neighbour for neighbour in found if neighbour.id != id][:k]

    def embed(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Embeds pictures as the collection was embedded, but for the whitening; vectors come back as they are.

        Args:
            queries: See `search`.

        Returns:
            float32 [queries, dimension of the embedder].
        """
        with self._embedding:  # one network, one thread
            if all(isinstance(query, str | os.PathLike) for query in queries):
                return self.embedder.embed_pictures(queries)  # type: ignore[arg-type]
            return np.stack([self._embedded(query) for query in queries])

    def _embedded(self, query: Query) -> NDArray[np.float32]:
        import torch

        if isinstance(query, np.ndarray) and query.ndim == 1:
            return query
        if isinstance(query, torch.Tensor):
            if query.dim() != 3:
                raise InputError(f"a picture is a tensor [3, height, width], not {list(query.shape)}")
            if tuple(query.shape[1:]) == (self.embedder.image_size,) * 2:
                (row,) = self.embedder.embed(query[None])
            else:
                pixels = query.detach().cpu()
                (row,) = self.embedder.embed_pictures(
                    [(pixels.float() if pixels.is_floating_point() else pixels).numpy()]
                )
        else:
            (row,) = self.embedder.embed_pictures([query])
        return cast("NDArray[np.float32]", row)

    @property
    def embedder(self) -> Embedder:
        """The network that made the vectors, without the whitening; loaded when it is first asked for.

        Raises:
            OptionError: The weights there are now are not those that embedded the collection.
            WeightsError: There are none.
        """
        if self._embedder is None:
            made = self.description["embedding"]
            self._embedder = encoder_of(made, self.path, device=self._device, weights=self._weights)
        return self._embedder

    @property
    def searching(self) -> IndexSearch:
        """The search by vectors, without names of pictures."""
        return self._search

    def vectors(self, ids: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Unit vectors as the search compares them (whitened), [ids, dimension]; None: of all items, in order."""
        table = self._state.table
        rows = table.rows if ids is None else table.rows[[self._search.position(one) for one in ids]]
        return self._state.vectors[rows]

    def duplicates(self, *, threshold: float | None = None) -> list[DuplicateGroup]:
        """Finds groups of pictures that are the same; see `vggtransfer.retrieval.duplicates.find_duplicates`."""
        from vggtransfer.retrieval.duplicates import find_duplicates

        return find_duplicates(self, threshold=threshold)

    def verify(self) -> None:
        """Reads all files again and compares every vector of the search with the stored embeddings.

        Raises:
            IndexDamagedError: A file is not what it was when written.
            DataError: The parts of the index contradict each other.
        """
        from vggtransfer.retrieval.verification import verify

        verify(read_state(self._state.folder))

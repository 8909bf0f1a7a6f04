"""A folder of pictures that can be searched by picture."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import InputError, OptionError, VGGTransferError
from vggtransfer.features.processes import share_of_work
from vggtransfer.retrieval.index_editing import arrange_anew, remove_pictures
from vggtransfer.retrieval.index_encoder import check_encoder, encoder_of
from vggtransfer.retrieval.index_folder import IndexFolder, check_new
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.index_kind import KindName
from vggtransfer.retrieval.index_search import IndexSearch, Items
from vggtransfer.retrieval.index_settings import IndexSettings, WhiteningName, check_loading
from vggtransfer.retrieval.index_state import IndexState, read_state
from vggtransfer.retrieval.index_update import IndexChange, Update, bring_in
from vggtransfer.retrieval.neighbours import DuplicateGroup, Neighbour

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from vggtransfer.retrieval.embedder import Embedder

__all__ = ["DuplicateGroup", "ImageIndex", "IndexChange", "Item", "Neighbour", "Query", "UnfinishedError"]

Query: TypeAlias = "str | os.PathLike[str] | Image.Image | Tensor | NDArray[np.float32]"


class UnfinishedError(VGGTransferError):
    """Other processes have pictures left to embed; the last one of them writes the index."""


class ImageIndex:
    """An index directory, opened. Made by `ImageIndex.build` and `ImageIndex.open`.

    Searching from several threads is safe. Changes show in this object at once; one that was opened elsewhere keeps
    what it opened.

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
    def build(
        cls,
        data: str | os.PathLike[str],
        *,
        out: str | os.PathLike[str],
        embedder: Embedder | None = None,
        whiten: int | None = None,
        whitening: WhiteningName = "pca",
        kind: KindName = "auto",
        recall: float = 0.95,
        max_memory: float | None = None,
        batch_size: int = 64,
        workers: int | None = None,
    ) -> Self:
        """Embeds all pictures below a folder and writes an index of them.

        A build that was stopped goes on where it was when it is repeated.

        Args:
            data: Folder of pictures. Of `train|val|test/CLASS/*` and of `CLASS/*` the classes are the labels.
            out: Directory for the index; a new one.
            embedder: What makes vectors of pictures; None: `Embedder()`, VGG16 with GeM pooling. If it has a whitening,
                the index takes that over.
            whiten: Learn a whitening from the collection, and keep so many dimensions; None: none is learnt.
            whitening: How: `pca`, or `learned` from pairs of pictures with the same label.
            kind: Of the FAISS index: `flat` compares with every picture and misses nothing; `hnsw`, `ivf` and `ivfpq`
                look at few; `auto` chooses by size, memory and wanted recall.
            recall: Share of the true 10 nearest neighbours that a search is to find, in (0, 1]; measured.
            max_memory: GiB that the FAISS index may take; None: half of what is free.
            batch_size: Pictures per pass through the network.
            workers: Processes that load pictures; None: chosen for the machine.

        Raises:
            VGGTransferError: An option, the folder or the pictures cannot be used; says which and what to do.
            UnfinishedError: This is one of several processes (see `vggtransfer extract`), and not the last.
        """
        from vggtransfer.retrieval.embedder import Embedder
        from vggtransfer.retrieval.index_changes import find_in_folder

        folder = IndexFolder(Path(out).expanduser())
        settings = IndexSettings(kind, recall, max_memory, whiten, whitening)
        check_loading(batch_size=batch_size, workers=workers)
        share = share_of_work()
        if share.processes == 1:  # of several, another one may have finished already
            check_new(folder.path)
        given = Embedder() if embedder is None else embedder
        if whiten is not None and given.whitening is not None:
            raise OptionError(f"whiten={whiten}, but the embedder has a whitening already; leave out one of them")
        update = Update(
            find_in_folder(Path(data).expanduser()),
            whole=True,
            settings=settings,
            source={
                "source": given.weights,
                "of_model": given.of_model,
                "origin": given.origin,
                "precision": given.precision,
            },
            whitening=given.whitening,
            batch_size=batch_size,
            workers=workers,
        )
        plain = given.with_whitening(None)
        change = bring_in(folder, update, plain, share)
        if not change.finished:
            raise UnfinishedError(f"this process is done; the last one of {share.processes} writes {folder.path}")
        return cls(read_state(folder), plain, device=str(plain.device), weights=None)

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
            query: A picture as a path, PIL image or tensor [3, height, width] in [0, 1]; or the embedding of one, a
                vector [dimension of the embedder].
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
    ) -> list[list[Neighbour]]:
        """As `search`, for many pictures, or vectors [queries, dimension of the embedder], at once.

        Args:
            queries: Pictures, or vectors.
            k: How many neighbours of each.
            label: Only pictures with this label.
            expand: Search once more with each query and so many of its neighbours together: alpha query expansion,
                Radenovic et al. 2018, section 5.4, with alpha = 3. Scores are those of the second search.
        """
        embeddings = queries if isinstance(queries, np.ndarray) else self.embed(queries)
        features = self._state.vectors.embeddings.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != features:
            raise InputError(f"vectors of shape {list(embeddings.shape)} cannot be searched for; [n, {features}] can")
        whitened = self._state.vectors.of(embeddings.astype(np.float32, copy=False))
        if expand:
            whitened = self._search.expanded(whitened, count=expand)
        return self._search.neighbours(whitened, k=k, label=label)

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
            (row,) = self.embedder.embed(query[None])
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

    def add(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        label: str | None = None,
        batch_size: int = 64,
        workers: int | None = None,
    ) -> IndexChange:
        """Adds pictures; those that are there already are looked at again, and embedded if they have changed.

        Args:
            paths: Pictures, folders with all below them, or patterns.
            label: Of all of them; None: their class folder below the folder of the collection, or none.
            batch_size: Pictures per pass through the network.
            workers: Processes that load pictures; None: chosen for the machine.
        """
        from vggtransfer.data.picture_files import list_pictures
        from vggtransfer.retrieval.index_changes import find_files

        found = find_files(list_pictures(map(Path, paths)), self.data, label=label)
        return self._bring_in(Update(found, whole=False, batch_size=batch_size, workers=workers))

    def sync(
        self, data: str | os.PathLike[str] | None = None, *, batch_size: int = 64, workers: int | None = None
    ) -> IndexChange:
        """Brings the index up to date with its folder: new, changed, renamed and removed pictures, by content.

        Every file is read, for its SHA-256; only content that the index does not know goes through the network.
        Pictures added from elsewhere stay as they are.

        Args:
            data: Where the folder is now, if it was moved; None: where it was.
            batch_size: Pictures per pass through the network.
            workers: Processes that load pictures; None: chosen for the machine.
        """
        from vggtransfer.retrieval.index_changes import find_in_folder

        found = find_in_folder(self.data if data is None else Path(data).expanduser())
        return self._bring_in(Update(found, whole=True, batch_size=batch_size, workers=workers))

    def _bring_in(self, update: Update) -> IndexChange:
        check_loading(batch_size=update.batch_size, workers=update.workers)
        change = bring_in(self._state.folder, update, self.embedder, share_of_work())
        self._reopen()
        return change

    def _reopen(self) -> None:
        self._search = IndexSearch(read_state(self._state.folder))

    def remove(self, paths_or_ids: Sequence[str | os.PathLike[str] | int]) -> int:
        """Removes pictures from the index; their files are not touched.

        The vectors go from the search at once, from the directory when a quarter of all rows are of removed pictures,
        or with `rebuild`.

        Args:
            paths_or_ids: Ids; or paths of files, or of folders for all below them, whether they still exist or not.

        Returns:
            How many were removed.

        Raises:
            OptionError: Something is not in the index.
        """
        removed = remove_pictures(self._state.folder, paths_or_ids, gpu=self._device.startswith("cuda"))
        self._reopen()
        return removed

    def rebuild(
        self,
        *,
        kind: KindName | None = None,
        recall: float | None = None,
        max_memory: float | None = None,
        whiten: int | None = None,
        whitening: WhiteningName = "pca",
    ) -> None:
        """Arranges all vectors anew, without embedding anything; what belongs to no picture any more is gone then.

        Args:
            kind: See `build`; None: as before.
            recall: See `build`; None: as before.
            max_memory: See `build`; None: as before.
            whiten: Dimensions of a whitening to learn from the pictures there are now, 0 for none; None: as before.
            whitening: How it is learnt.
        """
        before = self._state.settings
        settings = IndexSettings(
            kind or before.kind,
            before.recall if recall is None else recall,
            before.max_memory if max_memory is None else max_memory,
            before.whiten if whiten is None else whiten or None,
            before.whitening if whiten is None else whitening,
        )
        gpu = self._device.startswith("cuda")
        arrange_anew(self._state.folder, settings, relearn=whiten is not None, gpu=gpu)
        self._reopen()

    def verify(self) -> None:
        """Reads all files again and compares every vector of the search with the stored embeddings.

        Raises:
            IndexDamagedError: A file is not what it was when written.
            DataError: The parts of the index contradict each other.
        """
        from vggtransfer.retrieval.verification import verify

        verify(read_state(self._state.folder))

"""A folder of pictures that can be searched by picture."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast, overload

import numpy as np
from numpy.typing import NDArray

from vggtransfer.errors import InputError, OptionError
from vggtransfer.retrieval.index_folder import IndexFolder, check_new
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.index_kind import KindName
from vggtransfer.retrieval.index_state import IndexSettings, IndexState, WhiteningName, live_rows, read_state
from vggtransfer.retrieval.index_tuning import exact_neighbours
from vggtransfer.retrieval.index_update import IndexChange, Update, bring_in
from vggtransfer.retrieval.index_writing import NextGeneration, no_rows, write_generation
from vggtransfer.retrieval.neighbours import DuplicateGroup, Neighbour

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from vggtransfer.retrieval.embedder import Embedder

__all__ = ["DuplicateGroup", "ImageIndex", "IndexChange", "Item", "Items", "Neighbour", "Query"]

Query: TypeAlias = "str | os.PathLike[str] | Image.Image | Tensor | NDArray[np.float32]"

_FEW_ROWS = 20_000
"""Among so few vectors an exact search is quick, and no approximate one can miss those that a filter leaves."""


class ImageIndex:
    """An index directory, opened. Made by `ImageIndex.build` and `ImageIndex.open`.

    Searching from several threads is safe. Changes show in this object at once; an object opened elsewhere keeps what
    it opened.

    Attributes:
        path: The directory.
    """

    def __init__(self, state: IndexState, embedder: Embedder | None, device: str) -> None:
        self._device = device
        self._embedder = embedder
        self._embedding = threading.Lock()
        self.path = state.folder.path
        self._take(state)

    def _take(self, state: IndexState) -> None:
        self._state = state
        self._live = live_rows(state.table, len(state.vectors))
        self._positions = state.table.positions_by_row(len(state.vectors))
        self._labels = np.array(state.table.labels, object)

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
        """
        from vggtransfer.retrieval.embedder import Embedder
        from vggtransfer.retrieval.index_changes import find_in_folder

        folder = IndexFolder(Path(out).expanduser())
        _check(recall=recall, whiten=whiten, max_memory=max_memory, batch_size=batch_size, workers=workers)
        check_new(folder.path)
        given = Embedder() if embedder is None else embedder
        if whiten is not None and given.whitening is not None:
            raise OptionError(f"whiten={whiten}, but the embedder has a whitening already; leave out one of them")
        update = Update(
            find_in_folder(Path(data).expanduser()),
            whole=True,
            settings=IndexSettings(kind, recall, max_memory, whiten, whitening),
            weights={"source": given.weights, "origin": given.origin},
            whitening=given.whitening,
            batch_size=batch_size,
            workers=workers,
        )
        plain = given.with_whitening(None)
        bring_in(folder, update, plain, _share())
        return cls(read_state(folder), plain, str(plain.device))

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, embedder: Embedder | None = None, device: str = "auto") -> Self:
        """Opens an index after checking the SHA-256 of each of its files.

        Args:
            path: The index directory.
            embedder: Of the pictures to be searched for; None: the one that `index.yaml` tells of, loaded when a
                picture first needs it.
            device: Where that one computes.

        Raises:
            OptionError: There is no index, or the embedder is not the one that embedded the collection.
            IndexDamagedError: A file is not what it was when written.
        """
        index = cls(read_state(IndexFolder(Path(path).expanduser())), None, device)
        if embedder is not None:
            index._embedder = index._checked(embedder.with_whitening(None))
        return index

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self._state.table)

    @property
    def data(self) -> Path:
        """The folder of the pictures."""
        return self._state.data

    @property
    def items(self) -> Items:
        """All pictures, in the order of their ids; each Item is made when it is asked for."""
        return Items(self._state)

    @property
    def labels(self) -> dict[str, int]:
        """How many pictures each label has, sorted by label; those without one under ''."""
        names, counts = np.unique(np.array(self._state.table.labels, str), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    @property
    def description(self) -> dict[str, Any]:
        """What `index.yaml` says, in plain types: pictures, embedding, index, wanted, versions, files and digests."""
        return self._state.description

    @property
    def bad_files(self) -> dict[str, str]:
        """Files that gave no vector, and why, by their names below the data folder."""
        return {bad.name: bad.reason for bad in self._state.bad}

    def item(self, id: int) -> Item:  # noqa: A002
        """One picture.

        Raises:
            OptionError: No picture has this id.
        """
        return self._state.table.item(self._position(id), self.data)

    def _position(self, id: int) -> int:  # noqa: A002
        position = self._state.table.position(id)
        if position is None:
            raise OptionError(f"{self.path} has no picture with the id {id}")
        return position

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
        self, queries: Sequence[Query] | NDArray[np.float32], *, k: int = 10, label: str | None = None
    ) -> list[list[Neighbour]]:
        """As `search`, for many pictures, or vectors [queries, dimension of the embedder], at once."""
        embeddings = queries if isinstance(queries, np.ndarray) else self.embed(queries)
        features = self._state.vectors.embeddings.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != features:
            raise InputError(f"vectors of shape {list(embeddings.shape)} cannot be searched for; [n, {features}] can")
        return self._search(self._state.vectors.of(embeddings.astype(np.float32, copy=False)), k=k, label=label)

    def neighbours_of(self, id: int, *, k: int = 10, label: str | None = None) -> list[Neighbour]:  # noqa: A002
        """Finds the k pictures nearest to one of the collection, without itself; needs no encoder."""
        row = self._state.table.rows[[self._position(id)]]
        found = self._search(self._state.vectors[row], k=k + 1, label=label)[0]
        return [neighbour for neighbour in found if neighbour.id != id][:k]

    def _search(self, queries: NDArray[np.float32], *, k: int, label: str | None) -> list[list[Neighbour]]:
        if k < 1:
            raise OptionError(f"k={k} is not possible: it must be at least 1")
        scores, rows = self.nearest_rows(queries, k=k, allowed=self._allowed(label))
        return [
            [
                self._neighbour(int(self._positions[row]), score)
                for score, row in zip(of_query, rows_of_query, strict=True)
                if row >= 0
            ]
            for of_query, rows_of_query in zip(scores.tolist(), rows.tolist(), strict=True)
        ]

    def nearest_rows(
        self, queries: NDArray[np.float32], *, k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Searches by whitened vectors [queries, dimension] among some rows, or among all for None; see VectorIndex."""
        vectors = self._state.vectors
        if allowed is not None and allowed.sum() <= _FEW_ROWS < len(vectors):
            rows = np.flatnonzero(allowed)
            scores = queries @ vectors[rows].T
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(scores, order, axis=1), rows[order]
        return self._state.index.search(queries, k=k, vectors=vectors, allowed=allowed)

    def _allowed(self, label: str | None) -> NDArray[np.bool_] | None:
        if label is None:
            return self._live
        chosen = self._labels == label
        if not chosen.any():
            raise OptionError(f"no picture of {self.path} has the label '{label}'{_nearest(label, self.labels)}")
        allowed = np.zeros(len(self._state.vectors), bool)
        allowed[self._state.table.rows[chosen]] = True
        return allowed

    def _neighbour(self, position: int, score: float) -> Neighbour:
        item = self._state.table.item(position, self.data)
        return Neighbour(item.id, item.path, item.label, score)

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
            WeightsError: They are gone.
        """
        if self._embedder is None:
            from vggtransfer.retrieval.embedder import Embedder

            made = self.description["embedding"]
            self._embedder = self._checked(
                Embedder(
                    made["architecture"],
                    weights=made["source"],
                    layer=made["layer"],
                    pool=made["pool"],
                    scales=made["scales"],
                    image_size=made["image_size"],
                    crop_fraction=made["crop_fraction"],
                    device=self._device,
                )
            )
        return self._embedder

    def _checked(self, embedder: Embedder) -> Embedder:
        made = self.description["embedding"]
        if embedder.digest != made["digest"]:
            now = embedder.description
            different = [
                f"{name} {made.get(name)} there, {now[name]} now" for name in now if made.get(name) != now[name]
            ]
            raise OptionError(
                f"{self.path} was made with another encoder ({'; '.join(different)}); use that one, or a new index"
            )
        return embedder

    def vectors(self, ids: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Unit vectors as the search compares them (whitened), [ids, dimension]; None: of all items, in order."""
        table = self._state.table
        rows = table.rows if ids is None else table.rows[[self._position(one) for one in ids]]
        return self._state.vectors[rows]

    def duplicates(self, *, threshold: float = 0.95) -> list[DuplicateGroup]:
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
        return self._bring_in(Update(found, False, self._state.settings, {}, None, batch_size, workers))

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
        return self._bring_in(Update(found, True, self._state.settings, {}, None, batch_size, workers))

    def _bring_in(self, update: Update) -> IndexChange:
        made = self.description["embedding"]
        update = replace(update, weights={name: made[name] for name in ("source", "origin")})
        change = bring_in(self._state.folder, update, self.embedder, _share())
        self._take(read_state(self._state.folder))
        return change

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
        folder = self._state.folder
        with folder.locked():
            self._take(read_state(folder))
            stay = np.ones(len(self), bool)
            for one in paths_or_ids:
                stay[self._positions_at(one)] = False
            table = self._state.table.chosen(np.flatnonzero(stay))
            self._write(replace(self._next(), table=table))
        return int((~stay).sum())

    def _positions_at(self, one: str | os.PathLike[str] | int) -> list[int]:
        if isinstance(one, int):
            return [self._position(one)]
        path = Path(one).expanduser()
        absolute = path.parent.resolve() / path.name
        root = self.data
        name = absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)
        below = "" if name == "." else f"{name}/"
        found = [at for at, other in enumerate(self._state.table.names) if other == name or other.startswith(below)]
        if not found:
            raise OptionError(f"{self.path} has no picture {one}")
        return found

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
        folder = self._state.folder
        _check(recall=1 if recall is None else recall, whiten=whiten or None, max_memory=max_memory)
        with folder.locked():
            self._take(read_state(folder))
            before = self._state.settings
            settings = IndexSettings(
                kind or before.kind,
                before.recall if recall is None else recall,
                before.max_memory if max_memory is None else max_memory,
                before.whiten if whiten is None else whiten or None,
                before.whitening if whiten is None else whitening,
            )
            self._write(replace(self._next(), settings=settings, anew=True, relearn=whiten is not None))

    def _next(self) -> NextGeneration:
        """The generation that there is, to be changed."""
        state = self._state
        return NextGeneration(
            data=state.data,
            table=state.table,
            added=no_rows(),
            bad=state.bad,
            next_id=state.description["next_id"],
            embedding=state.description["embedding"],
            features=state.vectors.embeddings.shape[1],
            settings=state.settings,
        )

    def _write(self, new: NextGeneration) -> None:
        write_generation(self._state.folder, self._state, new, gpu=self._device.startswith("cuda"))
        self._take(read_state(self._state.folder))

    def verify(self) -> None:
        """Reads all files again and compares every vector of the search with the stored embeddings.

        Raises:
            IndexDamagedError: A file is not what it was when written.
            DataError: The parts of the index contradict each other.
        """
        from vggtransfer.retrieval.verification import verify

        verify(read_state(self._state.folder))

    def exact(self, queries: NDArray[np.float32], *, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As `nearest_rows` among all pictures, without the index: by comparing with every one."""
        return exact_neighbours(self._state.vectors, queries, k=k, allowed=self._live)


class Items(Sequence[Item]):
    """The pictures of an index, each made when it is asked for."""

    def __init__(self, state: IndexState) -> None:
        self._state = state

    def __len__(self) -> int:
        return len(self._state.table)

    @overload
    def __getitem__(self, position: int) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> list[Item]: ...
    def __getitem__(self, position: int | slice) -> Item | list[Item]:
        places = range(len(self))[position]
        table, data = self._state.table, self._state.data
        return table.item(places, data) if isinstance(places, int) else [table.item(place, data) for place in places]


def _share() -> Any:
    from vggtransfer.features.processes import share_of_work

    return share_of_work()


def _nearest(label: str, labels: dict[str, int]) -> str:
    from vggtransfer.errors import did_you_mean

    return did_you_mean(label, labels)


def _check(
    *,
    recall: float,
    whiten: int | None,
    max_memory: float | None,
    batch_size: int = 1,
    workers: int | None = None,
) -> None:
    if not 0 < recall <= 1:
        raise OptionError(f"recall={recall:g} is not possible: it must be above 0 and at most 1")
    if max_memory is not None and max_memory <= 0:
        raise OptionError(f"max_memory={max_memory:g} is not possible: it must be above 0, in GiB")
    for name, value, least in (("whiten", whiten, 1), ("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and value < least:
            raise OptionError(f"{name}={value} is not possible: it must be at least {least}")

"""A folder of pictures that can be searched by picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vggtransfer.errors import OptionError, VGGTransferError
from vggtransfer.features.processes import share_of_work
from vggtransfer.retrieval.index_editing import arrange_anew, remove_pictures
from vggtransfer.retrieval.index_folder import IndexFolder, check_new
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.index_kind import KindName
from vggtransfer.retrieval.index_search import IndexSearch
from vggtransfer.retrieval.index_settings import IndexSettings, WhiteningName, check_loading
from vggtransfer.retrieval.index_state import read_state
from vggtransfer.retrieval.index_update import IndexChange, Update, bring_in
from vggtransfer.retrieval.neighbours import DuplicateGroup, Neighbour
from vggtransfer.retrieval.open_index import OpenIndex, Query

if TYPE_CHECKING:
    from vggtransfer.retrieval.embedder import Embedder

__all__ = ["DuplicateGroup", "ImageIndex", "IndexChange", "Item", "Neighbour", "Query", "UnfinishedError"]


class UnfinishedError(VGGTransferError):
    """Other processes have pictures left to embed; the last one of them writes the index."""


class ImageIndex(OpenIndex):
    """An index directory, opened. Made by `ImageIndex.build` and `ImageIndex.open`.

    Searching from several threads is safe. Changes show in this object at once; one that was opened elsewhere keeps
    what it opened.

    Attributes:
        path: The directory.
    """

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
        if whiten is not None and whiten > given.dimension:
            raise OptionError(f"whiten={whiten} is not possible: vectors have {given.dimension} dimensions; use fewer")
        update = Update(
            find_in_folder(Path(data).expanduser()),
            whole=True,
            new=True,
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

    def _bring_in(self, update: Update) -> IndexChange:
        check_loading(batch_size=update.batch_size, workers=update.workers)
        change = bring_in(self._state.folder, update, self.embedder, share_of_work())
        self._reopen()
        return change

    def _reopen(self) -> None:
        self._search = IndexSearch(read_state(self._state.folder))

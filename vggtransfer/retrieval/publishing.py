"""An index that is searched in a database: the directory stays the original, the database follows it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vggtransfer.cache import write_atomically
from vggtransfer.errors import OptionError
from vggtransfer.progress_bar import ProgressBar
from vggtransfer.retrieval.vector_store import About, StoredPicture, StoreError, VectorStore, open_store

if TYPE_CHECKING:
    from vggtransfer.retrieval.image_index import ImageIndex
    from vggtransfer.retrieval.index_items import Item

_LINK_FILE = ".store.json"
_PICTURES_AT_ONCE = 5_000


@dataclass(frozen=True)
class Link:
    """Where an index directory is published.

    Attributes:
        address: Of the database.
        name: Of the collection there.
        owner: Token by which the collection is known to be this directory's.
    """

    address: str
    name: str
    owner: str

    @classmethod
    def of(cls, index: Path) -> Link | None:
        """That of a directory, or None if it is published nowhere."""
        try:
            return cls(**json.loads((index / _LINK_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @classmethod
    def new(cls, index: Path, address: str) -> Link:
        """A new one for a directory; it is written before anything is published."""
        return cls(address, index.resolve().name, secrets.token_hex(8))

    def save(self, index: Path) -> None:
        """Writes it into the directory."""
        with write_atomically(index / _LINK_FILE) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


def check_free(index: Path, address: str) -> None:
    """Refuses a place for a new collection, before any work, where another one is, or nobody answers.

    Raises:
        OptionError: The address is of no known kind, or the name is taken.
        StoreError: Nobody answers.
    """
    link = Link.new(index, address)
    if open_store(address, link.name).about() is not None:
        raise OptionError(f"--store {address}: there is a collection of the name of {link.name} already; rename --out")


def publish(index: ImageIndex, link: Link, store: VectorStore) -> int:
    """Makes a store hold exactly what an index holds, by sending what differs.

    Each picture is right at every moment, whatever is interrupted; the next call does the rest. Searches go on
    meanwhile, except where all vectors are other ones (a new whitening): they are refused until all are there. The
    list of what is there, without vectors, is held in memory.

    Args:
        index: The original.
        link: Where to.
        store: That place, opened.

    Returns:
        How many pictures were sent or removed.

    Raises:
        StoreError: The collection there follows another index; or the database failed.
    """
    made = index.description["embedding"]
    wanted = About(link.owner, True, str(index.data), made, index.searching.state.vectors.whitening)
    there = store.about()
    if there is not None and there.owner != link.owner:
        raise StoreError(f"{store.address}: the collection {link.name} there follows another index; use another name")
    link.save(index.path)  # first: whatever is written there from now on is known to be this directory's
    known: dict[int, StoredPicture] = {}
    if there is None or there.space != wanted.space:
        there = None
        store.create(replace(wanted, complete=False), dimension=index.searching.state.vectors.dimension)
    else:
        known = {picture.id: picture for picture in store.pictures()}
    items = index.items
    places = [place for place, item in enumerate(items) if known.pop(item.id, None) != _stored(item, index.data)]
    store.delete(list(known))
    with ProgressBar("publishing", steps=len(places), shown=True) as bar:
        for start in range(0, len(places), _PICTURES_AT_ONCE):
            part = [items[place] for place in places[start : start + _PICTURES_AT_ONCE]]
            vectors = index.vectors([item.id for item in part])
            store.put([_stored(item, index.data) for item in part], vectors)
            bar.advance(steps=len(part))
    if there is None or replace(there, whitening=None) != replace(wanted, whitening=None):
        store.describe(wanted)
    return len(places) + len(known)


def _stored(item: Item, data: Path) -> StoredPicture:
    name = str(item.path.relative_to(data).as_posix() if item.path.is_relative_to(data) else item.path)
    return StoredPicture(item.id, _text(name), _text(item.label), item.sha256, item.bytes)


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def follow(index: ImageIndex, address: str | None = None) -> str | None:
    """Publishes an index where it was published before, or at a new address; returns a line about it, if so.

    Raises:
        OptionError: It is published elsewhere already.
        StoreError: The database failed; the index itself is well.
    """
    link = Link.of(index.path)
    if link is not None and address not in (None, link.address):
        raise OptionError(f"--store {address}: {index.path} is published at {link.address} already")
    if link is None and address is None:
        return None
    link = link or Link.new(index.path, address or "")
    try:
        sent = publish(index, link, open_store(link.address, link.name))
    except StoreError as error:
        again = f"vggtransfer index sync {index.path} --store {link.address}"
        raise StoreError(f"{error} (the index itself is up to date; publish it with `{again}`)") from error
    return f"published at {link.address}, collection {link.name}: {sent:,} of {len(index):,} pictures sent or removed"

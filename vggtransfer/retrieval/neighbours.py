"""What a search and a look for duplicates give back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from vggtransfer.retrieval.index_items import Item


class Neighbour(NamedTuple):
    """A picture that was found.

    Attributes:
        id: Its number in the collection.
        path: Its file.
        label: Its class folder, or empty.
        score: Cosine of its (whitened) embedding and that of the query, from -1 to 1, which is the same picture.
    """

    id: int
    path: Path
    label: str
    score: float


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

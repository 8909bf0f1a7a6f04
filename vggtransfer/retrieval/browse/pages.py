"""The pages' content, from what the index answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import urlencode

import vggtransfer
from vggtransfer.report.page import render_page
from vggtransfer.retrieval.browse.pictures import is_unchanged
from vggtransfer.retrieval.browse.snapshot import Snapshot
from vggtransfer.retrieval.index_items import Item
from vggtransfer.retrieval.neighbours import Neighbour

_PACKAGE = "vggtransfer.retrieval.browse"
_ITEMS_PER_PAGE = 60
_GROUPS_PER_PAGE = 25
_COUNTS = (12, 24, 48, 96)
_THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


class Choice(NamedTuple):
    """What a person has chosen to see of the neighbours: of one label (empty: all), and how many."""

    label: str = ""
    k: int = 24

    @property
    def in_address(self) -> str:
        """As the end of an address, empty for what is chosen unasked."""
        chosen = {"label": self.label} if self.label else {}
        if self.k != Choice().k:
            chosen["k"] = str(self.k)
        return f"?{urlencode(chosen, errors='surrogateescape')}" if chosen else ""


class Pages:
    """Renders the pages.

    Args:
        max_upload: Bytes, to tell people before they have sent more.

    Attributes:
        style: The style sheet.
        script: What makes the pages more convenient where scripts are allowed.
    """

    def __init__(self, max_upload: int) -> None:
        self._max_upload = max_upload
        self.style = render_page("browse.css", {}, package=_PACKAGE)
        self.script = files(_PACKAGE).joinpath("templates/browse.js").read_text(encoding="utf-8")

    def collection(self, now: Snapshot, label: str, page: int) -> str:
        """All pictures, or those of one label, so many per page."""
        content = _paged(now.items(label), page, _ITEMS_PER_PAGE, {"label": label} if label else {})
        return self._render("collection.html", now, place="collection", choice=Choice(label), **content)

    def item(self, now: Snapshot, item: Item, found: Sequence[Neighbour], choice: Choice) -> str:
        """One picture of the collection and its neighbours."""
        notes = {
            True: "",
            False: "This file has changed since it was indexed: what is shown may not be what was found.",
            None: "The file of this picture is gone.",
        }
        note = notes[is_unchanged(item.path, item.sha256)]
        same = sum(neighbour.label == item.label for neighbour in found) if item.label and not choice.label else None
        return self._render(
            "neighbours.html", now, item=item, token="", found=found, choice=choice, note=note, same_label=same
        )

    def upload(self, now: Snapshot, token: str, found: Sequence[Neighbour], choice: Choice) -> str:
        """An uploaded picture and its neighbours."""
        return self._render(
            "neighbours.html", now, item=None, token=token, found=found, choice=choice, note="", same_label=None
        )

    def duplicates(self, now: Snapshot, threshold: float | None, page: int) -> str:
        """Groups of pictures that are the same or nearly so."""
        chosen = {} if threshold is None else {"threshold": f"{threshold:g}"}
        content = _paged(now.duplicates(threshold), page, _GROUPS_PER_PAGE, chosen)
        content |= {"threshold": threshold, "thresholds": sorted({*_THRESHOLDS, threshold or 1})}
        return self._render("duplicates.html", now, place="duplicates", choice=Choice(), **content)

    def message(self, now: Snapshot, text: str) -> str:
        """A page that says why there is no other."""
        return self._render("message.html", now, choice=Choice(), text=text)

    def _render(self, template: str, now: Snapshot, *, place: str = "", **content: object) -> str:
        data = now.index.data
        shared = {
            "name": data.name or str(data),
            "total": len(now.index.items),
            "labels": now.labels,
            "counts": _COUNTS,
            "max_upload": self._max_upload,
            "relative": lambda path: str(path.relative_to(data) if path.is_relative_to(data) else path),
            "version": vggtransfer.__version__,
            "place": place,
        }
        return render_page(template, {**shared, **content}, package=_PACKAGE)


def _paged(shown: Sequence[object], page: int, per_page: int, query: dict[str, str]) -> dict[str, object]:
    pages = max(1, -(-len(shown) // per_page))
    page = min(page, pages)

    def address(number: int) -> str:
        return "?" + urlencode({**query, "page": number}, errors="surrogateescape")

    return {
        "shown": shown[(page - 1) * per_page : page * per_page],
        "count": len(shown),
        "page": page,
        "pages": pages,
        "earlier": address(page - 1) if page > 1 else "",
        "later": address(page + 1) if page < pages else "",
    }

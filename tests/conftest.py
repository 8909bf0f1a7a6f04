from __future__ import annotations

import os
import signal
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

# The tests run in one process per core already; these count for every program that a test starts, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started in the background of a shell, tests would inherit an ignored Ctrl-C, and so would the programs they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """A page as a browser reads it: elements, ids and text; an error where tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> in line {self.getpos()[0]}"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def check_that_it_stands_alone(self) -> None:
        """No script, nothing to fetch, no attribute that runs something, links only within the page, ids unique."""
        assert {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject"}.isdisjoint(
            tag for tag, _ in self.elements
        )
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        for tag, attributes in self.elements:
            for name, value in attributes.items():
                assert not name.startswith("on"), (tag, name, value)
                assert name not in {"srcset", "action", "formaction", "background", "xlink:href"}, (tag, name)
                if name == "src":
                    assert value is not None
                    assert value.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")), (tag, value[:80])
                elif name == "href":
                    assert value is not None
                    assert value.startswith("#"), (tag, value)
                    assert value[1:] in ids
                elif name == "style":
                    assert value is not None
                    assert "url(" not in value
        styles = self.source.partition("<style>")[2].partition("</style>")[0]
        assert styles
        assert "@import" not in styles
        assert "url(" not in styles


@pytest.fixture
def read_page() -> Callable[[Path | str], Page]:
    """Reads a file, or a page as text, as a browser does."""
    return lambda page: Page(page if isinstance(page, str) else page.read_text(encoding="utf-8"))

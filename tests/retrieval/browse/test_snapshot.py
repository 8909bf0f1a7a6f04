"""The pages over an index that other commands change in the meantime."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vggtransfer.retrieval.browse.app import make_app
from vggtransfer.retrieval.browse.snapshot import Watched
from vggtransfer.retrieval.image_index import ImageIndex


def test_a_change_of_the_index_shows_at_the_next_look(collection: Path, tmp_path: Path, embedder: Any) -> None:
    index = ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder)
    watched = Watched(index, lambda before: ImageIndex.open(before.path, embedder=embedder))
    before = watched.now()
    assert before is watched.now()
    assert before.labels == {"a": 4, "b": 4, "c": 4}
    shutil.copy(collection / "train/a/00.png", collection / "train/b/copy.png")
    ImageIndex.open(tmp_path / "index", embedder=embedder).sync()
    after = watched.now()
    assert after is not before
    assert after.labels == {"a": 4, "b": 5, "c": 4}
    assert [item.label for item in after.items("b")] == ["b"] * 5
    assert [item.path.name for item in after.items("b")[-1:]] == ["copy.png"]
    (group,) = after.duplicates(None)
    assert (group.kind, {item.path.name for item in group.items}) == ("exact", {"00.png", "copy.png"})
    assert after.duplicates(1.0) is after.duplicates(1.0)


def test_an_index_as_it_is_built_can_be_shown(
    collection: Path, tmp_path: Path, embedder: Any, serve_app: Callable[..., Any]
) -> None:
    index = ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder)
    site = serve_app(make_app(Watched(index, lambda before: before), max_upload=10**6), index)
    assert "train/a/00.png" in site.ask("/").text
    page = site.ask("/item/1?k=3").text
    assert page.count('class="card"') == 3
    found = site.ask(site.upload((collection / "val/c/11.png").read_bytes()).headers["location"]).text
    assert "1.000" in found
    assert "val/c/11.png" in found.partition("</li>")[0]
    assert site.ask("/item/1?label=c").text.count('class="card"') == 4
    assert site.ask("/duplicates").status == 200


def test_a_damaged_index_is_said_on_the_page(
    collection: Path, tmp_path: Path, embedder: Any, serve_app: Callable[..., Any]
) -> None:
    index = ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder)
    watched = Watched(index, lambda before: ImageIndex.open(before.path, embedder=embedder))
    site = serve_app(make_app(watched, max_upload=10**6), index)
    (tmp_path / "index" / "index.yaml").write_text("changed")
    answer = site.ask("/")
    assert answer.status == 503
    assert "was changed after it was written" in answer.text

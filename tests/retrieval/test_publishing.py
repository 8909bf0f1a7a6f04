"""What reaches a database and what does not, with a dictionary in its place; Milvus itself: test_milvus_store.py."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vggtransfer.cli import main
from vggtransfer.errors import InputError, OptionError
from vggtransfer.retrieval import publishing
from vggtransfer.retrieval.image_index import ImageIndex
from vggtransfer.retrieval.published_index import PublishedIndex
from vggtransfer.retrieval.publishing import check_free, follow
from vggtransfer.retrieval.vector_store import About, StoredPicture, StoreError, collection_name, open_store

ADDRESS = "milvus+http://nowhere:19530"


@dataclass
class DictStore:
    """A `VectorStore` in memory that notes what it is sent."""

    address: str = ADDRESS
    said: About | None = None
    rows: dict[int, tuple[StoredPicture, NDArray[np.float32]]] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    broken_after: int = 10**9

    def about(self) -> About | None:
        return self.said

    def create(self, about: About, *, dimension: int) -> None:
        self.said, self.rows = about, {}

    def describe(self, about: About) -> None:
        self.said = about

    def pictures(self) -> Iterator[StoredPicture]:
        return iter([picture for picture, _ in self.rows.values()])

    def put(self, pictures: Sequence[StoredPicture], vectors: NDArray[np.float32]) -> None:
        for picture, vector in zip(pictures, vectors, strict=True):
            if len(self.sent) >= self.broken_after:
                raise StoreError("the line is dead")
            self.rows[picture.id] = (picture, vector)
            self.sent.append(picture.id)

    def delete(self, ids: Sequence[int]) -> None:
        for one in ids:
            del self.rows[one]

    def vectors(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return np.stack([self.rows[one][1] for one in ids])

    def search(
        self, queries: NDArray[np.float32], *, k: int, label: str | None
    ) -> list[list[tuple[StoredPicture, float]]]:
        found = []
        for query in queries:
            scored = [(p, float(v @ query)) for p, v in self.rows.values() if label in (None, p.label)]
            found.append(sorted(scored, key=lambda hit: -hit[1])[:k])
        return found


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> DictStore:
    made = DictStore()
    monkeypatch.setattr(publishing, "open_store", lambda *_: made)
    return made


@pytest.fixture
def index(collection: Path, tmp_path: Path, embedder: Any) -> ImageIndex:
    return ImageIndex.build(collection, out=tmp_path / "my photos", embedder=embedder, whiten=6)


def test_only_what_differs_is_sent_and_what_is_gone_is_removed(index: ImageIndex, store: DictStore) -> None:
    assert follow(index) is None
    assert "12 of 12 pictures" in str(follow(index, ADDRESS))
    assert sorted(store.sent) == [item.id for item in index.items]
    store.sent.clear()
    assert "0 of 12 pictures" in str(follow(index))
    shutil.copy(index.data / "train/a/00.png", index.data / "train/b/copy.png")
    (index.data / "train/c/08.png").unlink()
    (index.data / "train/c/09.png").rename(index.data / "train/c/moved.png")
    index.sync()
    follow(index)
    names = {picture.name for picture in store.pictures()}
    assert len(store.sent) == 2
    assert "train/b/copy.png" in names
    assert "train/c/moved.png" in names
    assert names == {item.path.relative_to(index.data).as_posix() for item in index.items}
    np.testing.assert_allclose(store.vectors([item.id for item in index.items]), index.vectors(), atol=1e-6)


def test_the_database_finds_what_the_index_finds(index: ImageIndex, store: DictStore, embedder: Any) -> None:
    follow(index, ADDRESS)
    published = PublishedIndex(store)
    published._embedder = embedder
    queries = index.embed([index.data / "train/a/00.png", index.data / "val/c/11.png"])
    for options in ({"k": 3}, {"k": 20, "label": "b"}, {"k": 4, "expand": 3}, {"k": 4, "augment": 3, "rerank": 9}):
        here, there = index.search_many(queries, **options), published.search_many(queries, **options)
        assert [[one.path for one in row] for row in here] == [[one.path for one in row] for row in there]
        scores = [[[one.score for one in row] for row in found] for found in (here, there)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    assert published.neighbours_of(0, k=2)[0].id == index.neighbours_of(0, k=2)[0].id
    with pytest.raises(OptionError, match=r"no picture of .* has the label 'rose'"):
        published.search_many(queries, label="rose")
    with pytest.raises(OptionError, match="k=0"):
        published.search_many(queries, k=0)
    with pytest.raises(InputError, match=r"\[n, 48\] can"):
        published.search_many(queries[:, :5])


def test_what_was_interrupted_is_refused_until_the_rest_is_there(index: ImageIndex, store: DictStore) -> None:
    store.broken_after = 5
    with pytest.raises(StoreError, match=r"the line is dead .*index sync .*my photos --store milvus"):
        follow(index, ADDRESS)
    with pytest.raises(StoreError, match="still being published"):
        PublishedIndex(store)
    store.broken_after = 10**9
    assert "7 of 12 pictures" in str(follow(index))
    assert len(PublishedIndex(store).neighbours_of(0, k=20)) == 11


def test_another_whitening_replaces_all_vectors(index: ImageIndex, store: DictStore) -> None:
    follow(index, ADDRESS)
    index.rebuild(whiten=4)
    store.sent.clear()
    follow(index)
    assert len(store.sent) == 12
    assert store.vectors([0]).shape == (1, 4)
    assert len(PublishedIndex(store).neighbours_of(0, k=20)) == 11


def test_the_collection_of_another_index_is_left_alone(index: ImageIndex, store: DictStore, tmp_path: Path) -> None:
    follow(index, ADDRESS)
    assert store.said is not None
    store.said = replace(store.said, owner="somebody else")
    with pytest.raises(StoreError, match="follows another index"):
        follow(index)
    with pytest.raises(OptionError, match=r"is published at .*nowhere:19530 already"):
        follow(index, "milvus+http://elsewhere:19530")
    with pytest.raises(OptionError, match="there is a collection of the name of my photos already"):
        check_free(tmp_path / "my photos", ADDRESS)


def test_addresses_names_and_the_missing_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collection_name("my photos-2.index") == "my_photos_2_index"
    assert collection_name("2024 été") == "_2024__t_"
    with pytest.raises(OptionError, match=r"--store qdrant\+http://x: write it as milvus\+http://HOST:19530"):
        open_store("qdrant+http://x", "name")
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    monkeypatch.delitem(sys.modules, "vggtransfer.retrieval.milvus_store", raising=False)
    assert main(["search", "flowers", __file__, "--store", ADDRESS]) == 2
    assert capsys.readouterr().err == (
        f"error: --store {ADDRESS} needs pymilvus, which is not installed: pip install 'vggtransfer[milvus]'\n"
    )

"""Damage is found before anything is read, and two processes do not change one index."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from vggtransfer.errors import DataError, OptionError, VGGTransferError
from vggtransfer.retrieval import image_index, index_folder
from vggtransfer.retrieval.image_index import ImageIndex
from vggtransfer.retrieval.index_folder import IndexDamagedError, IndexFolder, file_entry


@pytest.fixture
def index(collection, embedder, tmp_path):
    return ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder, whiten=8, workers=0)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Other content: a bit flipped, a piece cut out, repeated, zeroed or replaced, or the end cut off."""
    changed = bytearray(content)
    at = chance.randrange(len(content))
    end = min(len(content), at + chance.choice([1, 8, 100, 4096]))
    match chance.choice(["bit", "cut", "repeat", "zero", "random", "end", "more"]):
        case "bit":
            changed[at] ^= 1 << chance.randrange(8)
        case "cut":
            del changed[at:end]
        case "repeat":
            changed[at:at] = changed[at:end]
        case "zero":
            changed[at:end] = bytes(end - at)
        case "random":
            changed[at:end] = chance.randbytes(end - at)
        case "end":
            del changed[at:]
        case "more":
            changed += chance.randbytes(end - at)
    return bytes(changed)


def test_none_of_a_thousand_mutated_files_is_read(index):
    chance = random.Random(7)
    files = sorted(path for path in index.path.iterdir() if path.name != ".lock")
    assert len(files) == 6
    content = {path: path.read_bytes() for path in files}
    tried = 0
    while tried < 1000:
        path = files[tried % len(files)]
        other = mutated(content[path], chance)
        if other == content[path]:
            continue
        tried += 1
        path.write_bytes(other)
        with pytest.raises(IndexDamagedError, match=path.name):
            ImageIndex.open(index.path)
        path.write_bytes(content[path])
    assert len(ImageIndex.open(index.path)) == 12


def test_a_missing_file_and_no_index_are_said(index, tmp_path):
    (index.path / index.description["files"]["faiss"]["name"]).unlink()
    with pytest.raises(IndexDamagedError, match=r"faiss\.index cannot be read: No such file"):
        ImageIndex.open(index.path)
    with pytest.raises(OptionError, match="there is no index"):
        ImageIndex.open(tmp_path / "photos")


def test_files_that_contradict_each_other_are_found(index):
    folder, description = IndexFolder(index.path), index.description
    content = bytearray((index.path / description["files"]["faiss"]["name"]).read_bytes())
    content[-32:] = bytes(32)  # the vector of the last picture; the digest below is right
    path = folder.file(2, "faiss", ".index")
    path.write_bytes(content)
    folder.switch({**description, "generation": 2, "files": {**description["files"], "faiss": file_entry(path)}})
    with pytest.raises(DataError, match="a picture does not find itself"):
        ImageIndex.open(index.path).verify()


def test_an_index_of_a_later_version_is_refused(index):
    folder = IndexFolder(index.path)
    folder.switch({**index.description, "format": 2})
    with pytest.raises(DataError, match="has format 2, this version reads 1"):
        ImageIndex.open(index.path)


def test_one_change_at_a_time(index, monkeypatch):
    monkeypatch.setattr(index_folder, "_SECONDS_TO_WAIT", 0)
    with IndexFolder(index.path).locked(), pytest.raises(OptionError, match="changed by another process"):
        index.remove([0])
    assert index.remove([0]) == 1


def test_a_change_leaves_only_files_that_are_named(index):
    (index.path / "000009-faiss.index").write_bytes(b"left by a killed process")
    (index.path / ".000002-items.123-0123abcd.parquet").write_bytes(b"likewise")
    (index.path / "parts-0123").mkdir()
    (index.path / "notes.txt").write_text("mine")
    index.remove([0])
    named = {entry["name"] for entry in index.description["files"].values()}
    assert {path.name for path in index.path.iterdir()} == named | {"index.yaml", ".lock", "notes.txt"}


def test_a_search_goes_on_while_the_index_changes(index, collection, drawn):
    opened = ImageIndex.open(index.path)
    index.add([drawn(collection / "train" / "a" / "new.png", 500)], workers=0)
    assert len(opened) == 12
    assert len(opened.neighbours_of(3, k=20)) == 11
    assert len(ImageIndex.open(index.path)) == 13


def test_a_place_with_something_else_in_it_is_refused(collection, embedder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for place in ("full", "full/thesis.tex"):
        with pytest.raises(VGGTransferError, match="--out"):
            ImageIndex.build(collection, out=tmp_path / place, embedder=embedder)


def test_pictures_whose_names_look_like_files_of_an_index_are_not_taken_for_them(collection, embedder, tmp_path, drawn):
    picture = drawn(tmp_path / "numbered" / "000001-rose.png", 1)
    with pytest.raises(OptionError, match="holds something else"):
        ImageIndex.build(tmp_path / "numbered", out=tmp_path / "numbered", embedder=embedder)
    index = ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder, workers=0)
    beside = drawn(index.path / "000001-items.png", 2)
    index.remove([0])
    assert picture.exists()
    assert beside.exists()


def test_the_list_is_read_without_what_lives_on_in_threads(index):
    # Such threads let go of our bytes after the interpreter has ended, and then abort the process.
    code = (
        "import sys; from pathlib import Path; from vggtransfer.retrieval.index_items import read_items\n"
        "path = Path(sys.argv[1]); print(len(read_items(memoryview(path.read_bytes()), path)))\n"
        "assert 'pyarrow.dataset' not in sys.modules"
    )
    (items,) = index.path.glob("*-items.parquet")
    run = subprocess.run([sys.executable, "-c", code, items], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("12\n", "")


def test_a_build_does_not_change_the_index_that_another_one_has_made_meanwhile(
    collection, embedder, tmp_path, monkeypatch
):
    def built_by_another(path):
        monkeypatch.undo()
        ImageIndex.build(collection / "train", out=path, embedder=embedder, workers=0)

    monkeypatch.setattr(image_index, "check_new", built_by_another)
    with pytest.raises(OptionError, match="there is an index"):
        ImageIndex.build(collection, out=tmp_path / "index", embedder=embedder, whiten=8, workers=0)
    assert len(ImageIndex.open(tmp_path / "index")) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_killed_change_leaves_the_old_index_or_the_new_one():
    script = Path(__file__).parents[1] / "benchmarks" / "retrieval_crashes.py"
    finished = subprocess.run([sys.executable, script, "5"], capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("5 kills")

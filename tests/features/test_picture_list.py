from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from vggtransfer.errors import DataError
from vggtransfer.features.picture_list import PictureList, list_folder


def test_names_come_back_in_order() -> None:
    names = ["a.png", "b/ü ☂.jpg", "b/c/d.png", os.fsdecode(b"not utf-8 \xff.jpg")]
    pictures = PictureList(Path("data"), iter(names))
    assert len(pictures) == 4
    assert [pictures.name(index) for index in range(4)] == names
    assert pictures.path(1) == Path("data") / "b" / "ü ☂.jpg"
    copied = pickle.loads(pickle.dumps(pictures))
    assert [copied.name(index) for index in range(4)] == names


def test_the_digest_is_that_of_the_names_wherever_they_lie() -> None:
    digest = PictureList(Path("here"), ["ab", "c"]).digest
    assert PictureList(Path("there"), ["ab", "c"]).digest == digest
    assert PictureList(Path("here"), ["a", "bc"]).digest != digest
    assert PictureList(Path("here"), ["c", "ab"]).digest != digest


def test_a_million_names_take_little_more_than_their_characters() -> None:
    pictures = PictureList(Path(), (f"n01440764/{number:08d}.jpg" for number in range(20_000)))
    assert sum(map(sys.getsizeof, vars(pictures).values())) < 20_000 * (22 + 8 + 2)


def test_list_folder_finds_pictures_by_name_only(tmp_path: Path) -> None:
    for name in ("z/1.PNG", "a/2.jpg", "top.webp", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pictures = list_folder(tmp_path)
    assert [pictures.name(index) for index in range(len(pictures))] == ["a/2.jpg", "top.webp", "z/1.PNG"]


def test_list_folder_tells_what_is_there_instead(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"there are no pictures \(only 1 x .txt\)"):
        list_folder(tmp_path)

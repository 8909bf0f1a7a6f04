from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from vggtransfer.data.picture_files import list_pictures
from vggtransfer.errors import DataError


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.jpg", "a.jpg", "notes.txt", "more/c.PNG", "more/deep/d.webp", ".hidden/e.jpg", "more/[1].jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(*paths: str | Path) -> list[str]:
    return [path.as_posix() for path in list_pictures(paths)]


def test_files_come_in_the_order_given(photos: Path) -> None:
    assert listed("b.jpg", Path("a.jpg")) == ["b.jpg", "a.jpg"]


def test_folders_are_searched_through_and_sorted(photos: Path) -> None:
    assert listed(".") == ["a.jpg", "b.jpg", "more/[1].jpg", "more/c.PNG", "more/deep/d.webp"]
    assert listed(photos / "more") == [f"{photos}/more/{name}" for name in ("[1].jpg", "c.PNG", "deep/d.webp")]


def test_patterns(photos: Path) -> None:
    assert listed("*.jpg") == ["a.jpg", "b.jpg"]
    assert listed("*") == ["a.jpg", "b.jpg", "more/[1].jpg", "more/c.PNG", "more/deep/d.webp"]
    assert listed("**/*.webp") == ["more/deep/d.webp"]
    assert listed(f"{photos}/mor?/c.*") == [f"{photos}/more/c.PNG"]


def test_a_name_that_looks_like_a_pattern_is_a_name(photos: Path) -> None:
    assert listed("more/[1].jpg") == ["more/[1].jpg"]


def test_each_picture_comes_once_under_its_first_name(photos: Path) -> None:
    assert listed("b.jpg", "*.jpg", photos / "b.jpg", "./a.jpg") == ["b.jpg", "a.jpg"]


def test_a_named_file_is_taken_whatever_its_ending(photos: Path) -> None:
    assert listed("notes.txt") == ["notes.txt"]


def test_a_broken_link_is_left_for_the_decoder_to_report(photos: Path) -> None:
    (photos / "gone.jpg").symlink_to(photos / "nowhere")
    assert "gone.jpg" in listed(".")
    assert listed("gone.jpg") == ["gone.jpg"]


def test_links_in_circles_end(photos: Path) -> None:
    (photos / "more" / "again").symlink_to(photos)
    (photos / "empty" / "linked").symlink_to(photos / "more" / "deep")
    names = ["a.jpg", "b.jpg", "empty/linked/d.webp", "more/[1].jpg", "more/c.PNG", "more/deep/d.webp"]
    assert listed(".") == names


def test_home(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photos))
    assert listed("~/a.jpg", "~/more/*.PNG") == [f"{photos}/a.jpg", f"{photos}/more/c.PNG"]


def test_a_list_on_standard_input(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("  b.jpg\r\n\nmore/deep  \n*.jpg"))
    assert listed("more/c.PNG", "-") == ["more/c.PNG", "b.jpg", "more/deep/d.webp", "a.jpg"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a.jpg", "missing.jpg"], "no such file or folder: missing.jpg"),
        (["*.gif"], r"no pictures match the pattern \*.gif"),
        (["*.txt"], r"no pictures match the pattern \*.txt"),
        (["empty"], "no pictures in empty"),
        ([], "no pictures given"),
        (["\0"], "no such file or folder"),
    ],
)
def test_what_is_not_there(photos: Path, paths: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_pictures(paths)


def test_an_empty_list_on_standard_input(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(DataError, match="no pictures given"):
        list_pictures(["-"])


def test_a_folder_that_may_not_be_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> object:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot read the folder more: Permission denied"):
        list_pictures(["more"])


def test_names_that_begin_with_a_tilde(photos: Path) -> None:
    (photos / "~tmp.png").touch()
    assert listed("~tmp.png", "*.png") == ["~tmp.png"]


def test_names_that_are_no_text_or_end_in_spaces(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [b"no\xfftext.jpg", b"space.jpg "]
    for name in names:
        (photos / os.fsdecode(name)).touch()
    stream = io.TextIOWrapper(io.BytesIO(b"\n".join(names) + b"\r\n\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stream)
    assert listed("-") == [os.fsdecode(name) for name in names]

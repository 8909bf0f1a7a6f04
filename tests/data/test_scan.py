from __future__ import annotations

import csv
import hashlib
import io
import multiprocessing
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggtransfer.data import scan, scan_results
from vggtransfer.data.decode import decode_image
from vggtransfer.data.duplicates import find_duplicates
from vggtransfer.data.folders import Sample, read_folders
from vggtransfer.data.scan import BadPicture, check_folders, check_pictures, write_bad_pictures
from vggtransfer.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scans" / "pictures.sqlite"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really decoded, in any order."""
    seen: list[str] = []

    def note(path: Path, *, min_side: int | None = None) -> object:
        seen.append(path.name)
        return decode_image(path, min_side=min_side)

    monkeypatch.setattr(scan, "decode_image", note)
    return seen


def picture(path: Path, value: int = 0, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    path.write_bytes(file.getvalue())
    return path


def spoil(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


def test_good_and_bad_keep_their_order(tmp_path: Path) -> None:
    samples = [Sample(picture(tmp_path / f"{number}.jpg", number, "JPEG"), number % 3) for number in range(20)]
    spoil(samples[7].path)
    samples[3].path.write_text("hello")
    samples[12].path.unlink()
    check = check_pictures(samples)
    assert check.good == tuple(sample for number, sample in enumerate(samples) if number not in (3, 7, 12))
    assert [bad.path for bad in check.bad] == [samples[3].path, samples[7].path, samples[12].path]
    assert check.bad[0].reason.startswith("not a picture in a known format")
    assert check.bad[1].reason.startswith("cannot be decoded as JPEG: image file is truncated")
    assert check.bad[2] == BadPicture(samples[12].path, "No such file or directory")
    assert check.hashes == {sample.path: hashlib.sha256(sample.path.read_bytes()).hexdigest() for sample in check.good}


def test_stop_names_the_first_bad_picture_and_the_way_out(tmp_path: Path) -> None:
    samples = [Sample(picture(tmp_path / f"{number:02}.png", number), 0) for number in range(30)]
    for number in (29, 11, 12):
        samples[number].path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        check_pictures(samples, on_bad_image="stop")
    assert str(caught.value) == (
        f"{tmp_path}/11.png: the file is empty; replace or remove it, or leave such out with --on-bad-image skip"
    )


def test_nothing_to_check() -> None:
    assert check_pictures([]).good == ()


def test_a_path_that_occurs_twice_is_read_once(tmp_path: Path, decoded: list[str]) -> None:
    path = picture(tmp_path / "a.png")
    assert check_pictures([Sample(path, 0), Sample(path, 1)]).good == (Sample(path, 0), Sample(path, 1))
    assert decoded == ["a.png"]


# Earlier results


def test_a_second_check_reads_nothing(tmp_path: Path, decoded: list[str], cache: Path) -> None:
    samples = [Sample(picture(tmp_path / f"{number}.png", number), 0) for number in range(1203)]
    spoil(samples[600].path)
    first = check_pictures(samples)
    assert len(decoded) == 1203
    assert cache.is_file()
    decoded.clear()
    assert check_pictures(samples) == first
    assert check_pictures([Sample(tmp_path / "." / "5.png", 0)]).good
    assert decoded == []


@pytest.mark.parametrize("change", ["content", "time", "decoder"])
def test_what_has_changed_is_read_again(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    samples = [Sample(picture(tmp_path / f"{number}.png", number), 0) for number in range(3)]
    check_pictures(samples)
    decoded.clear()
    path = samples[1].path
    if change == "content":
        path.write_bytes(b"")
        os.utime(path, ns=(0, 0))
    elif change == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    else:
        monkeypatch.setattr(scan_results, "DECODER", "another")
    check = check_pictures(samples)
    assert sorted(decoded) == (["0.png", "1.png", "2.png"] if change == "decoder" else ["1.png"])
    assert [bad.reason for bad in check.bad] == (["the file is empty"] if change == "content" else [])


def test_failures_that_may_pass_are_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(picture(tmp_path / "a.png"), 0)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", "a.png")

        patch.setattr(Path, "open", refuse)
        assert check_pictures([sample]).bad == (BadPicture(sample.path, "Permission denied"),)
    assert check_pictures([sample]).good == (sample,)

    other = Sample(picture(tmp_path / "b.png"), 0)
    with monkeypatch.context() as patch:

        def starve(*_: object) -> None:
            raise MemoryError

        patch.setattr("vggtransfer.data.decode._to_rgb", starve)
        assert check_pictures([other]).bad == (BadPicture(other.path, "not enough memory to decode it"),)
    assert check_pictures([other]).good == (other,)


def test_stopping_at_a_bad_picture_keeps_what_was_found(tmp_path: Path, decoded: list[str]) -> None:
    samples = [Sample(picture(tmp_path / f"{number}.png", number), 0) for number in range(6)]
    spoil(samples[4].path)
    for _ in range(2):
        with pytest.raises(DataError, match=r"4\.png"):
            check_pictures(samples, on_bad_image="stop")
    assert {name: decoded.count(name) for name in ("0.png", "1.png", "2.png", "3.png", "4.png")} == {
        f"{number}.png": 1 for number in range(5)
    }


@pytest.mark.parametrize("trouble", ["no database", "damaged", "folder is a file", "locked"])
def test_without_a_usable_memory_everything_is_read(
    tmp_path: Path, cache: Path, decoded: list[str], trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(picture(tmp_path / f"{number}.png", number), 0) for number in range(3)]
    holder = None
    if trouble == "folder is a file":
        cache.parent.parent.mkdir()
        cache.parent.touch()
    else:
        check_pictures(samples)
        decoded.clear()
    if trouble == "no database":
        cache.write_text("this is no database, and long enough to be sure of it " * 50)
    elif trouble == "damaged":
        data = cache.read_bytes()
        cache.write_bytes(data[:100] + bytes(len(data) - 100))
    elif trouble == "locked":
        holder = sqlite3.connect(cache, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0))
    assert check_pictures(samples).good == tuple(samples)
    assert len(decoded) == 3
    if holder is not None:
        holder.close()
    if trouble in ("no database", "damaged"):
        check_pictures(samples)
        decoded.clear()
        check_pictures(samples)
        assert decoded == []


def test_several_processes_may_check_at_once(tmp_path: Path) -> None:
    samples = [Sample(picture(tmp_path / f"{number}.png", number), 0) for number in range(50)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert [len(check.good) for check in pool.map(check_pictures, [samples] * 2)] == [50] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = picture(tmp_path / os.fsdecode(b"caf\xe9.png"))
    for _ in range(2):
        assert check_pictures([Sample(path, 0)]).good == (Sample(path, 0),)
    bad = spoil(picture(tmp_path / os.fsdecode(b"\xff.png")))
    check = check_pictures([Sample(bad, 0)])
    write_bad_pictures(tmp_path / "bad.csv", check.bad)
    assert os.fsencode(bad) in (tmp_path / "bad.csv").read_bytes()


# Progress


def test_quiet_when_fast_or_not_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    samples = [Sample(picture(tmp_path / f"{number}.png", number), 0) for number in range(3)]
    check_pictures(samples, progress=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [False, True])
def test_slow_checks_tell_how_far_they_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(scan, "_SECONDS_BEFORE_PROGRESS", 0)
    if terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("TERM", "xterm")
    samples = [Sample(picture(tmp_path / f"{number}.png", number), 0) for number in range(3)]
    check_pictures(samples, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    if terminal:
        assert "checking pictures" in err
        assert "\x1b[" in err
    else:
        assert err == "checking 3 pictures ...\n"


def test_an_interrupt_ends_the_check_and_keeps_the_results(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample(picture(tmp_path / f"{number:03}.png", number), 0) for number in range(200)]
    monkeypatch.setattr(scan, "_threads", lambda: 1)
    tenth = threading.Event()

    def slow(path: Path, *, min_side: int | None = None) -> object:
        if path.name == "010.png":
            tenth.wait()
        decoded.append(path.name)
        return decode_image(path, min_side=min_side)

    monkeypatch.setattr(scan, "decode_image", slow)

    class Interrupt:
        count = 0

        def __call__(self) -> None:
            Interrupt.count += 1
            if Interrupt.count == 5:
                tenth.set()
                raise KeyboardInterrupt

    progress = scan._progress

    class Fake:
        def __enter__(self) -> Interrupt:
            return Interrupt()

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(scan, "_progress", lambda *_: Fake())
    with pytest.raises(KeyboardInterrupt):
        check_pictures(samples)
    assert len(decoded) < 20
    monkeypatch.setattr(scan, "_progress", progress)
    decoded.clear()
    assert len(check_pictures(samples).good) == 200
    assert "000.png" not in decoded


# Folders


def test_folders_lose_their_bad_pictures(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for first, place in enumerate(("train/a", "train/b", "val/a", "val/b")):
        for number in range(4):
            picture(root / place / f"{number}.png", 10 * first + number)
    bad = [spoil(root / "train/a/1.png"), spoil(root / "val/b/2.png")]
    folders, check = check_folders(read_folders(root))
    assert [item.path for item in check.bad] == bad
    assert [sample.path.name for sample in folders.train] == [
        "0.png",
        "2.png",
        "3.png",
        "0.png",
        "1.png",
        "2.png",
        "3.png",
    ]
    assert len(folders.val) == 7
    assert folders.warnings[0].startswith(f"2 bad pictures left out, such as {bad[0]} (cannot be decoded as PNG")


def test_a_class_or_split_without_good_pictures_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("a", "b"):
        for number in range(2):
            picture(root / "train" / name / f"{number}.png", number)
            spoil(picture(root / "val" / name / f"{number}.png", number))
    with pytest.raises(DataError, match=r"no validation picture can be decoded, such as .*/val/a/0.png: cannot"):
        check_folders(read_folders(root))
    for number in range(2):
        spoil(root / "train" / "b" / f"{number}.png")
    with pytest.raises(
        DataError, match=r"no training picture of class b can be decoded, such as .*/train/b/0.png: can"
    ):
        check_folders(read_folders(root))


def test_the_same_picture_in_two_splits_or_under_two_labels(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(10):
        picture(root / "train" / "ab"[number % 2] / f"{number}.png", number)
    for number in range(4):  # these under the right label
        picture(root / "val" / "ab"[number % 2] / f"again{number}.png", number)
    picture(root / "val" / "a" / "new.png", 100)
    picture(root / "test" / "b" / "other.png", 4)  # this one is an "a" in train
    picture(root / "test" / "a" / "fine.png", 101)
    picture(root / "train" / "a" / "twice.png", 6)  # twice in the same place is nobody's trouble
    folders, _ = check_folders(read_folders(root))
    assert folders.warnings == (
        f"4 pictures in both train and val: {root}/train/a/0.png = {root}/val/a/again0.png; "
        f"{root}/train/a/2.png = {root}/val/a/again2.png; {root}/train/b/1.png = {root}/val/b/again1.png; and 1 more.",
        f"1 picture in both train and test: {root}/train/a/4.png = {root}/test/b/other.png.",
        f"1 picture under more than one label: {root}/train/a/4.png (a) = {root}/test/b/other.png (b).",
    )


def test_pictures_without_a_hash_have_no_duplicates() -> None:
    samples = [Sample(Path("x"), 0), Sample(Path("y"), 1)]
    assert find_duplicates({"train": samples}, {Path("x"): "1"}, ("a", "b")) == ()
    assert find_duplicates({"train": samples}, {Path("x"): "1", Path("y"): "1"}, ("a", "b")) == (
        "1 picture under more than one label: x (a) = y (b).",
    )


def test_the_list_of_bad_pictures(tmp_path: Path) -> None:
    bad = [BadPicture(Path("a, b.jpg"), 'says "no"'), BadPicture(Path("ü.jpg"), "empty")]
    path = tmp_path / "run" / "bad.csv"
    write_bad_pictures(path, bad)
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["path", "reason"], ["a, b.jpg", 'says "no"'], ["ü.jpg", "empty"]]
    write_bad_pictures(path, [])
    assert path.read_text() == "path,reason\n"

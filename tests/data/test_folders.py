from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from vggtransfer.data.folders import PictureFolders, Sample, find_class_folders, read_folders, read_split
from vggtransfer.errors import DataError, OptionError


def touch(root: Path, *names: str) -> None:
    """Makes files that are never opened here; `{a,3}.jpg` stands for a0.jpg a1.jpg a2.jpg."""
    for name in names:
        many = [name]
        if "{" in name:
            head, _, rest = name.partition("{")
            inside, _, tail = rest.partition("}")
            stem, count = inside.split(",")
            many = [f"{head}{stem}{number}{tail}" for number in range(int(count))]
        for one in many:
            path = root / one
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def names(samples: tuple[Sample, ...], root: Path) -> list[str]:
    return [sample.path.relative_to(root).as_posix() for sample in samples]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_layout(tmp_path: Path, val: str) -> None:
    touch(
        tmp_path,
        "train/rose/b.jpg",
        "train/rose/a.PNG",
        "train/daisy/c.webp",
        f"{val}/daisy/d.tif",
        f"{val}/rose/e.gif",
    )
    touch(tmp_path, "test/rose/f.jpeg", "test/daisy/g.bmp")
    folders = read_folders(tmp_path)
    assert folders.root == tmp_path
    assert folders.layout == "split"
    assert folders.classes == ("daisy", "rose")
    assert folders.train == (
        Sample(tmp_path / "train/daisy/c.webp", 0),
        Sample(tmp_path / "train/rose/a.PNG", 1),
        Sample(tmp_path / "train/rose/b.jpg", 1),
    )
    assert folders.val == (Sample(tmp_path / f"{val}/daisy/d.tif", 0), Sample(tmp_path / f"{val}/rose/e.gif", 1))
    assert folders.test == (Sample(tmp_path / "test/daisy/g.bmp", 0), Sample(tmp_path / "test/rose/f.jpeg", 1))
    assert folders.warnings == (f"{tmp_path}/train has 1 class with one picture only: daisy.",)


def test_without_val_a_part_of_train_is_set_aside_and_test_stays(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/{x,10}.jpg", "train/b/{x,20}.jpg", "test/a/t.jpg", "test/b/t.jpg")
    folders = read_folders(tmp_path, val_fraction=0.3)
    assert Counter(sample.label for sample in folders.val) == {0: 3, 1: 6}
    assert Counter(sample.label for sample in folders.train) == {0: 7, 1: 14}
    assert not {*folders.train} & {*folders.val}
    assert names(folders.test, tmp_path) == ["test/a/t.jpg", "test/b/t.jpg"]
    assert folders.warnings == ()


def test_flat_layout(tmp_path: Path) -> None:
    touch(tmp_path, "a/{x,5}.jpg", "b/{x,5}.jpg", "b/deeper/still/z.jpg", "b/deeper/folder.jpg/y.jpg")
    folders = read_folders(tmp_path)
    assert folders.layout == "flat"
    assert folders.test == ()
    everything = sorted([*folders.train, *folders.val], key=lambda sample: sample.path)
    assert names(tuple(everything), tmp_path) == [
        *(f"a/x{number}.jpg" for number in range(5)),
        "b/deeper/folder.jpg/y.jpg",
        "b/deeper/still/z.jpg",
        *(f"b/x{number}.jpg" for number in range(5)),
    ]
    assert list(folders.train) == sorted(folders.train, key=lambda sample: sample.path)


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/{x,4}.jpg", "bus/{x,4}.jpg", "test/{x,4}.jpg")
    folders = read_folders(tmp_path)
    assert (folders.layout, folders.classes) == ("flat", ("bus", "test", "train"))


# The split


def flat(root: Path, sizes: dict[str, int]) -> None:
    touch(root, *(f"{name}/{{p,{size}}}.jpg" for name, size in sizes.items()))


def counts(folders: PictureFolders) -> tuple[dict[str, int], dict[str, int]]:
    train, val = (
        {folders.classes[label]: count for label, count in Counter(sample.label for sample in samples).items()}
        for samples in (folders.train, folders.val)
    )
    return train, val


@pytest.mark.parametrize(
    ("sizes", "fraction", "expected"),
    [
        ({"a": 10, "b": 20}, 0.2, {"a": 2, "b": 4}),
        ({"a": 3, "b": 3, "c": 3, "d": 3}, 0.25, {"a": 1, "b": 1, "c": 1, "d": 1}),
        ({"a": 11, "b": 12, "c": 13}, 0.25, {"a": 3, "b": 3, "c": 3}),  # 2.75 + 3 + 3.25 = 9
        ({"a": 14, "b": 15, "c": 13}, 0.1, {"a": 1, "b": 2, "c": 1}),  # 4.2 in all; b's remainder is largest
        ({"a": 2, "b": 2, "c": 96}, 0.2, {"a": 1, "b": 1, "c": 18}),  # 20 in all, one at least each
        ({"a": 2, "b": 2, "c": 6}, 0.9, {"a": 1, "b": 1, "c": 5}),  # and one at least stays
        ({"a": 1, "b": 10}, 0.2, {"b": 2}),  # the only one is for training
        ({"a": 2, "b": 2, "c": 2}, 0.01, {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_counts_are_exact(tmp_path: Path, sizes: dict[str, int], fraction: float, expected: dict[str, int]) -> None:
    flat(tmp_path, sizes)
    train, val = counts(read_folders(tmp_path, val_fraction=fraction))
    assert val == expected
    assert {name: train[name] + val.get(name, 0) for name in sizes} == sizes


def test_the_total_is_exact_for_many_small_classes(tmp_path: Path) -> None:
    flat(tmp_path, {f"class{number}": 3 + number % 5 for number in range(40)})
    for fraction in (0.25, 0.37, 0.5, 0.61):
        folders = read_folders(tmp_path, val_fraction=fraction)
        assert len(folders.val) == round(fraction * 200)


def test_the_split_depends_on_the_seed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "elsewhere" / "other"
    flat(one, {"a": 30, "b": 30})
    for name in ("b", "a"):
        for number in reversed(range(30)):
            touch(other, f"{name}/p{number}.jpg")
    first = read_folders(one, seed=1)
    assert names(first.val, one) == names(read_folders(other, seed=1).val, other)
    assert names(first.val, one) != names(read_folders(one, seed=2).val, one)

    touch(other, "c/{p,30}.jpg")  # another class changes nothing for the others
    assert [name for name in names(read_folders(other, seed=1).val, other) if name[0] != "c"] == names(first.val, one)

    scandir = os.scandir

    class Backwards:
        def __init__(self, folder: Path) -> None:
            self.entries = scandir(folder)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return list(self.entries)[::-1]

        def __exit__(self, *_: object) -> None:
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    assert read_folders(one, seed=1) == first


def test_the_same_pictures_are_drawn_on_every_machine(tmp_path: Path) -> None:
    flat(tmp_path, {"a": 6, "b": 6})
    drawn = names(read_folders(tmp_path, val_fraction=0.34, seed=7).val, tmp_path)
    # The smallest of: printf 7/a/p0.jpg | sha256sum, and so on.
    assert drawn == ["a/p0.jpg", "a/p5.jpg", "b/p0.jpg", "b/p5.jpg"]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 20, float("nan")])
def test_a_fraction_that_is_none(tmp_path: Path, fraction: float) -> None:
    flat(tmp_path, {"a": 6, "b": 6})
    with pytest.raises(OptionError, match="val_fraction must lie between 0 and 1, got"):
        read_folders(tmp_path, val_fraction=fraction)


def test_one_picture_per_class_leaves_nothing_to_validate_with(tmp_path: Path) -> None:
    flat(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"every class .* has one picture only, so none can be set aside"):
        read_folders(tmp_path)


# What else lies around


def test_what_runs_have_written_is_no_data(tmp_path: Path) -> None:
    touch(tmp_path, "rose/1.jpg", "rose/2.jpg", "iris/1.jpg", "iris/2.jpg")
    touch(tmp_path, "runs/finetune/1/recipe.yaml", "runs/finetune/1/curves.png", "runs/evaluate/1/environment.json")
    touch(tmp_path, "runs/evaluate/1/confusion.png")
    folders = read_folders(tmp_path)
    assert folders.classes == ("iris", "rose")
    assert any("runs" in warning for warning in folders.warnings)


def test_files_that_are_no_pictures_are_counted_and_system_files_are_not(tmp_path: Path) -> None:
    flat(tmp_path, {"a": 4, "b": 4})
    touch(tmp_path, "a/notes.txt", "b/deep/labels.csv", "readme.md")
    touch(tmp_path, "a/.hidden.jpg", "a/._p0.jpg", "a/Thumbs.db", "b/desktop.ini", ".git/x.jpg", "__MACOSX/a/p0.jpg")
    folders = read_folders(tmp_path)
    assert len(folders.train) + len(folders.val) == 8
    assert folders.warnings == (f"3 files in {tmp_path} not taken for pictures by name, such as a/notes.txt.",)


def test_loose_pictures_and_folders_beside_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/{x,4}.jpg", "train/b/{x,4}.jpg", "train/cover.jpg", "old/m.png")
    assert read_folders(tmp_path).warnings == (
        f"1 picture directly in {tmp_path}/train, in no class folder, not used.",
        f"Folders beside {tmp_path}/train are not used: old.",
    )


def test_empty_classes_and_single_pictures_are_told(tmp_path: Path) -> None:
    flat(tmp_path, {"a": 4, "b": 4, "c": 1})
    (tmp_path / "d").mkdir()
    folders = read_folders(tmp_path)
    assert folders.classes == ("a", "b", "c")
    assert folders.warnings == (
        f"{tmp_path} has 1 class without pictures, left out: d.",
        f"{tmp_path} has 1 class with one picture only: c.",
    )


def test_symlinks_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "{x,4}.jpg")
    flat(tmp_path / "data", {"a": 4})
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "again").symlink_to(tmp_path / "data" / "a")
    (tmp_path / "data" / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    folders = read_folders(tmp_path / "data")
    found = names((*folders.train, *folders.val), tmp_path / "data")
    assert sorted(found) == [f"a/{name}.jpg" for name in ("gone", "p0", "p1", "p2", "p3")] + [
        f"b/x{number}.jpg" for number in range(4)
    ]


# What cannot be used


def test_classes_of_val_and_test_must_be_known(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/{x,2}.jpg", "train/b/{x,2}.jpg", "val/a/x.jpg", "val/c/x.jpg", "val/d/x.jpg")
    with pytest.raises(DataError) as caught:
        read_folders(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/val has classes that {tmp_path}/train has not: c, d; rename, move or remove them (train has: a, b)"
    )


def test_a_class_empty_in_train_is_unknown_too(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/{x,2}.jpg", "train/b/{x,2}.jpg", "test/c/x.jpg")
    (tmp_path / "train" / "c").mkdir()
    with pytest.raises(DataError, match="has not: c;"):
        read_folders(tmp_path)


def test_a_class_missing_from_val_is_a_warning(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/{x,2}.jpg", "train/b/{x,2}.jpg", "val/a/x.jpg", "test/b/x.jpg")
    (tmp_path / "val" / "b").mkdir()
    folders = read_folders(tmp_path)
    assert folders.classes == ("a", "b")
    assert folders.warnings == (
        f"{tmp_path}/val has no pictures of 1 class: b.",
        f"{tmp_path}/test has no pictures of 1 class: a.",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no pictures in DIR; expected one folder of pictures per class"),
        (["a/x.txt", "a/y.txt", "b/z.md"], "no pictures in DIR (only 2 x .txt, 1 x .md); expected one folder"),
        (
            ["one.jpg", "two.jpg"],
            "DIR has 2 pictures but no class folders; move the pictures of each class into a folder of its own, "
            "such as DIR/CLASS/one.jpg",
        ),
        (["train/one.jpg"], "DIR/train has 1 picture but no class folders"),
        (["a/{x,3}.jpg"], "DIR has pictures of one class only (a), two are needed"),
        (["flowers/train/a/x.jpg", "flowers/train/b/x.jpg"], "two are needed; did you mean DIR/flowers?"),
        (["train/a/x.jpg"], "DIR/train has pictures of one class only (a), two are needed"),
        (["val/a/x.jpg", "test/a/x.jpg"], "DIR has test and val but no train folder; add DIR/train with class folders"),
        (["train/a/x.jpg", "val/a/x.jpg", "valid/a/x.jpg"], "DIR has more than one folder for val: val, valid"),
        (
            ["train/a/x.jpg", "train/b/x.jpg", "val/a/x.txt"],
            "no pictures in DIR/val (only 1 x .txt); fill it, or remove",
        ),
    ],
)
def test_unusable_folders(tmp_path: Path, files: list[str], message: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError) as caught:
        read_folders(tmp_path)
    assert message.replace("DIR", str(tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folders(tmp_path: Path) -> None:
    touch(tmp_path, "file.zip")
    with pytest.raises(DataError, match=r"no such folder: .*/missing$"):
        read_folders(tmp_path / "missing")
    with pytest.raises(DataError, match=r"file\.zip is a file; expected a folder"):
        read_folders(tmp_path / "file.zip")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(tmp_path, {"a": 4, "b": 4})
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read the folder .*/b: Permission denied"):
        read_folders(tmp_path)


# read_split


def test_auto_takes_test_then_val_then_all_of_a_flat_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/b/3.jpg", "test/b/4.jpg")
    assert read_split(tmp_path) == (("a", "b"), (Sample(tmp_path / "test/b/4.jpg", 1),))
    assert names(read_split(tmp_path, "val")[1], tmp_path) == ["val/b/3.jpg"]
    assert names(read_split(tmp_path, "train")[1], tmp_path) == ["train/a/1.jpg", "train/b/2.jpg"]
    assert names(read_split(tmp_path, "all")[1], tmp_path) == [
        "train/a/1.jpg",
        "train/b/2.jpg",
        "val/b/3.jpg",
        "test/b/4.jpg",
    ]
    assert names(read_split(tmp_path / "train")[1], tmp_path) == ["train/a/1.jpg", "train/b/2.jpg"]
    (tmp_path / "test/b/4.jpg").unlink()
    (tmp_path / "test/b").rmdir()
    (tmp_path / "test").rmdir()
    assert names(read_split(tmp_path)[1], tmp_path) == ["val/b/3.jpg"]


def test_evaluation_needs_no_train_folder(tmp_path: Path) -> None:
    touch(tmp_path, "test/a/1.jpg", "test/b/2.jpg")
    assert read_split(tmp_path)[0] == ("a", "b")
    assert read_split(tmp_path / "test")[0] == ("a", "b")


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (["train/a/x.jpg"], "auto", "DIR has neither a test nor a val folder; use the split 'train' if you mean it"),
        (["train/a/x.jpg"], "test", "DIR has no test folder, only train"),
        (["a/x.jpg"], "val", "DIR has no val folder, only class folders; use the split 'all' or 'auto'"),
        (["train/a/x.jpg", "test/a/x.txt"], "auto", "no pictures in DIR/test (only 1 x .txt)"),
        (["x.jpg"], "auto", "DIR has 1 picture but no class folders"),
    ],
)
def test_splits_that_are_not_there(tmp_path: Path, files: list[str], split: str, message: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError) as caught:
        read_split(tmp_path, split)  # type: ignore[arg-type]
    assert message.replace("DIR", str(tmp_path)) in str(caught.value)


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (["rose/a.jpg", "daisy/deep/b.jpg", "c.jpg"], {"rose/a.jpg": "rose", "daisy/deep/b.jpg": "daisy", "c.jpg": ""}),
        (
            ["train/rose/a.jpg", "Valid/rose/deep/b.jpg", "masks/rose/c.jpg", "train/d.jpg"],
            {"train/rose/a.jpg": "rose", "Valid/rose/deep/b.jpg": "rose", "masks/rose/c.jpg": "", "train/d.jpg": ""},
        ),
        (["train/a.jpg", "ship/b.jpg"], {"train/a.jpg": "train", "ship/b.jpg": "ship"}),
    ],
)
def test_labels_by_path(tmp_path: Path, files: list[str], labels: dict[str, str]) -> None:
    touch(tmp_path, *files)
    layout = find_class_folders(tmp_path)
    assert {name: layout.label(name) for name in files} == labels

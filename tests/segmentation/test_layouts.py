import re

import pytest

from vggtransfer.errors import DataError
from vggtransfer.segmentation.known_classes import known_classes
from vggtransfer.segmentation.layouts import find_masked_pictures


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(layout, root):
    return {
        split: [(one.path.relative_to(root).as_posix(), one.masks[0].relative_to(root).as_posix()) for one in samples]
        for split, samples in layout.splits.items()
    }


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        (
            "SPLIT/images with SPLIT/masks",
            ["train/images/a.jpg", "train/masks/a.png", "valid/Images/b.jpg", "valid/labels/b_mask.png"],
            {
                "train": [("train/images/a.jpg", "train/masks/a.png")],
                "val": [("valid/Images/b.jpg", "valid/labels/b_mask.png")],
            },
        ),
        ("images with masks", ["images/d/a.jpg", "masks/d/a.png"], {"train": [("images/d/a.jpg", "masks/d/a.png")]}),
        (
            "images/SPLIT with masks/SPLIT",
            ["images/training/a.jpg", "annotations/training/a.png", "images/test/c.jpg"],
            {"train": [("images/training/a.jpg", "annotations/training/a.png")]},
        ),
        (
            "SPLIT with SPLITannot or SPLIT_masks",
            ["train/a.png", "trainannot/a.png", "val/b.png", "valannot/b.png"],
            {"train": [("train/a.png", "trainannot/a.png")], "val": [("val/b.png", "valannot/b.png")]},
        ),
        (
            "SPLIT with SPLITannot or SPLIT_masks",
            ["train/a.jpg", "train_masks/a_mask.gif", "test/b.jpg"],
            {"train": [("train/a.jpg", "train_masks/a_mask.gif")]},
        ),
        (
            "Cityscapes",
            [
                "leftImg8bit/train/ulm/ulm_0_0_leftImg8bit.png",
                "gtFine/train/ulm/ulm_0_0_gtFine_labelIds.png",
                "gtFine/train/ulm/ulm_0_0_gtFine_color.png",
            ],
            {
                "train": [
                    (
                        "leftImg8bit/train/ulm/ulm_0_0_leftImg8bit.png",
                        "gtFine/train/ulm/ulm_0_0_gtFine_labelIds.png",
                    )
                ],
                "val": [],
            },
        ),
    ],
)
def test_layouts_are_recognised(tmp_path, name, files, expected):
    layout = find_masked_pictures(touch(tmp_path, *files))
    assert layout.name == name
    assert found(layout, tmp_path) == expected


def test_pascal_voc_takes_the_pictures_of_its_lists(tmp_path):
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg", "JPEGImages/c.jpg", "SegmentationClass/a.png")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    layout = find_masked_pictures(tmp_path)
    assert found(layout, tmp_path) == {"train": [("JPEGImages/a.jpg", "SegmentationClass/a.png")]}
    assert layout.unmatched == [("train", tmp_path / "JPEGImages" / "b.jpg", "has no mask")]


def test_what_has_no_partner_is_named(tmp_path):
    layout = find_masked_pictures(touch(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/c.png"))
    assert layout.unmatched == [("train", tmp_path / "images" / "b.jpg", "has no mask")]
    assert layout.orphans == [tmp_path / "masks" / "c.png"]
    assert not layout.has_splits


@pytest.mark.parametrize("files", [["masks/cat/a.png", "masks/dog/a.png"], ["masks/a/cat.png", "masks/a/dog.png"]])
def test_a_mask_for_each_class(tmp_path, files):
    layout = find_masked_pictures(touch(tmp_path, "images/a.jpg", *files))
    assert layout.layers == ("cat", "dog")
    (sample,) = layout.splits["train"]
    assert [path.relative_to(tmp_path).as_posix() for path in sample.masks] == files


def test_folders_of_pictures_are_no_classes_whatever_their_masks_end_on(tmp_path):
    layout = find_masked_pictures(touch(tmp_path, "images/ulm/a.jpg", "masks/ulm/a_mask.png"))
    assert layout.layers == ()
    assert found(layout, tmp_path) == {"train": [("images/ulm/a.jpg", "masks/ulm/a_mask.png")]}


def test_two_pictures_of_one_name_do_not_share_a_mask(tmp_path):
    layout = find_masked_pictures(touch(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png"))
    assert found(layout, tmp_path) == {"train": [("images/a.jpg", "masks/a.png")]}
    assert layout.unmatched == [
        ("train", tmp_path / "images" / "a.png", "has the name of a.jpg, so that a mask may be either's")
    ]


def test_a_class_without_its_mask_is_named(tmp_path):
    files = ["images/a.jpg", "images/b.jpg", "masks/cat/a.png", "masks/cat/b.png", "masks/dog/a.png"]
    layout = find_masked_pictures(touch(tmp_path, *files))
    assert layout.unmatched == [("train", tmp_path / "images" / "b.jpg", "has no mask of dog")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cats/a.jpg"], "no pictures with masks were recognised (it has cats)"),
        (["images/a.jpg", "masks/a.png", "train/images/a.jpg", "train/masks/a.png"], "keep one of them"),
        (["images/a.jpg", "masks/b.png"], "no picture has a mask, such as"),
        (["images/a.jpg", "masks/cat/b.png"], "no picture has a mask, such as"),
        (["images/a.jpg", "masks/a.png", "labels/a.png"], "has both masks and labels"),
    ],
)
def test_what_cannot_be_recognised_is_an_error(tmp_path, files, message):
    with pytest.raises(DataError, match=re.escape(message)):
        find_masked_pictures(touch(tmp_path, *files))


def test_classes_of_known_data_sets(tmp_path):
    name = "leftImg8bit/train/ulm/u_leftImg8bit.png"
    layout = find_masked_pictures(touch(tmp_path / "ids", name, "gtFine/train/ulm/u_gtFine_labelIds.png"))
    classes = known_classes(layout)
    assert (len(classes.classes), classes.classes[18].name, classes.classes[18].values) == (19, "bicycle", (33,))
    assert 0 in classes.ignored_values
    layout = find_masked_pictures(touch(tmp_path / "train", name, "gtFine/train/ulm/u_gtFine_labelTrainIds.png"))
    assert known_classes(layout).classes[18].values == (18,)
    assert known_classes(find_masked_pictures(touch(tmp_path / "other", "images/a.jpg", "masks/a.png"))) is None

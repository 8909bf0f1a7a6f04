"""Masks of all sorts become class numbers, or an error that names the file."""

import re

import numpy as np
import pytest
from PIL import Image

from vggtransfer.errors import DataError, OptionError
from vggtransfer.segmentation.mask_classes import MaskClasses, read_mask_classes
from vggtransfer.segmentation.mask_coding import MaskCoding
from vggtransfer.segmentation.mask_files import open_mask, picture_size, summarise_mask
from vggtransfer.segmentation.mask_meaning import find_coding

RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)


def write(path, pixels, *, palette=None, mode=None, **options):
    image = Image.fromarray(np.asarray(pixels, np.uint16 if mode == "I;16" else np.uint8))
    if palette is not None:
        image = image.convert("L")
        image.putpalette([part for colour in palette for part in colour])
    image.save(path, **options)
    return path


def coding_of(paths, classes=None, *, ignore=None, task="auto", layers=()):
    said = read_mask_classes(classes, ignore)
    return find_coding([summarise_mask(path) for path in paths], classes=said, ignore=ignore, task=task, layers=layers)


def encoded(path, coding):
    mask, unknown = coding.encode(open_mask(path))
    assert unknown == []
    return mask.tolist()


def test_values_are_classes_and_255_does_not_count(tmp_path):
    mask = write(tmp_path / "a.png", [[0, 1, 2, 255]])
    coding = coding_of([mask])
    assert (coding.task, coding.names) == ("multiclass", ("class 0", "class 1", "class 2"))
    assert encoded(mask, coding) == [[0, 1, 2, 255]]


def test_black_and_white_is_binary_and_so_is_one_and_zero(tmp_path):
    white, one = write(tmp_path / "white.png", [[0, 255]]), write(tmp_path / "one.png", [[0, 1, 255]])
    for mask, expected in ((white, [[0, 1]]), (one, [[0, 1, 255]])):
        coding = coding_of([mask])
        assert (coding.task, coding.names) == ("binary", ("foreground",))
        assert encoded(mask, coding) == expected
    assert coding_of([white], "sky,road").names == ("road",)
    assert coding_of([white], "road").codes == {0: 0, 255: 1}
    two = coding_of([white], "sky,road", task="multiclass")
    assert (two.task, two.names, encoded(white, two)) == ("multiclass", ("sky", "road"), [[0, 1]])


def test_names_values_and_ignored_ones_come_from_options(tmp_path):
    mask = write(tmp_path / "a.png", [[0, 1, 2, 11]])
    coding = coding_of([mask], "sky,road,car", ignore=11)
    assert encoded(mask, coding) == [[0, 1, 2, 255]]
    strange = write(tmp_path / "b.png", [[0, 7]])
    assert coding.unknown(summarise_mask(strange)) == [7]
    assert coding.complaint([7], open_mask(strange)) == "has the value 7, which is no class (0 to 2) nor ignored"
    assert encoded(mask, MaskCoding.from_dict(coding.as_dict())) == [[0, 1, 2, 255]]


def test_a_file_maps_values_and_colours(tmp_path):
    table = tmp_path / "classes.yaml"
    table.write_text(
        "classes:\n- {name: sky, colour: '#ff0000', value: 23}\n- {name: road, colours: [[0, 255, 0], [0, 200, 0]], "
        "values: [7, 8]}\nignore: [0, '#000000']\n"
    )
    colours = write(tmp_path / "colours.png", [[RED, GREEN, (0, 200, 0), BLACK]])
    values = write(tmp_path / "values.png", [[23, 7, 8, 0]])
    swapped = write(tmp_path / "swapped.png", [[1, 0, 1, 2]], palette=[GREEN, RED, BLACK])
    coding = coding_of([colours, values, swapped], str(table), task="multiclass")
    assert encoded(colours, coding) == [[0, 1, 1, 255]]
    assert encoded(values, coding) == [[0, 1, 1, 255]]
    assert encoded(swapped, coding) == [[0, 1, 0, 255]]
    strange = summarise_mask(write(tmp_path / "strange.png", [[0, 1]], palette=[RED, (1, 2, 3)]))
    assert (
        coding.complaint(coding.unknown(strange), strange) == "has the colour #010203, which is no class's nor ignored"
    )
    assert MaskClasses.from_dict(read_mask_classes(str(table), None).as_dict()).names == ("sky", "road")


def test_a_colour_mask_that_shows_grey_classes_alone_is_still_one_of_colours(tmp_path):
    table = tmp_path / "classes.yaml"
    table.write_text(
        "classes:\n- {name: road, colour: '#ffffff'}\n- {name: car, colour: '#ff0000'}\nignore: '#000000'\n"
    )
    white, red = [255, 255, 255], [255, 0, 0]
    colours = write(tmp_path / "colours.png", [[BLACK, white, red]])
    grey = write(tmp_path / "grey.png", [[BLACK, white]])
    smaller = write(tmp_path / "smaller.png", [[0, 255]])
    coding = MaskCoding.from_dict(coding_of([colours, grey, smaller], str(table), task="multiclass").as_dict())
    assert [encoded(path, coding) for path in (colours, grey, smaller)] == [[[255, 0, 1]], [[255, 0]], [[255, 0]]]
    strange = write(tmp_path / "strange.png", [[BLACK, (1, 1, 1)]])
    unknown = coding.unknown(summarise_mask(strange))
    assert unknown == coding.encode(open_mask(strange))[1]
    assert coding.complaint(unknown, open_mask(strange)) == "has the colour #010101, which is no class's nor ignored"
    # Where the file says what values mean, too, those of masks with one channel count.
    table.write_text(table.read_text().replace("name: road", "name: road, value: 3").replace("car", "car, value: 0"))
    coding = coding_of([colours, grey, smaller], str(table), task="multiclass")
    assert encoded(grey, coding) == [[255, 0]]
    assert coding.unknown(summarise_mask(smaller)) == [255]


def test_kinds_of_files(tmp_path):
    grey = np.repeat(np.array([[0, 1, 2]])[..., None], 3, axis=2)
    for path in (
        write(tmp_path / "grey.png", grey),
        write(tmp_path / "deep.png", [[0, 1, 2]], mode="I;16"),
        write(tmp_path / "palette.gif", [[0, 1, 2]], palette=[BLACK, RED, GREEN]),
    ):
        raw = open_mask(path)
        assert (raw.in_colour, raw.values.tolist()) == (False, [[0, 1, 2]])


def test_masks_by_class(tmp_path):
    mask = write(tmp_path / "cat.png", [[0, 255]])
    coding = coding_of([mask], layers=("cat", "dog"))
    assert (coding.task, coding.names, encoded(mask, coding)) == ("multilabel", ("cat", "dog"), [[0, 1]])


def test_contradictions_are_errors_that_name_files(tmp_path):
    one, white = write(tmp_path / "one.png", [[0, 1]]), write(tmp_path / "white.png", [[0, 255]])
    gap = write(tmp_path / "gap.png", [[0, 1, 200]])
    first = write(tmp_path / "first.png", [[0, 1, 2]], palette=[BLACK, RED, GREEN])
    other = write(tmp_path / "other.png", [[0, 1, 2]], palette=[BLACK, GREEN, RED])
    colour = write(tmp_path / "colour.png", [[RED, GREEN]])
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    smooth = write(tmp_path / "smooth.jpg", np.kron([[0, 255], [255, 0]], np.ones((9, 9))), quality=50)
    for paths, message in (
        ([one, white], f"{one} has the values 0 and 1, {white} 0 and 255"),
        ([gap], "values 0, 1, 200, which are not all the numbers of classes"),
        ([first, other], "their palettes are in different orders"),
        ([colour], "nobody said which colour is which class"),
        ([write(tmp_path / "photo.png", noise)], "has hundreds of colours"),
        ([smooth], f"{smooth} is a JPEG with"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            coding_of(paths)
    assert coding_of([one, white], ignore=255).codes == {0: 0, 1: 1, 255: 255}
    coding = coding_of([white, smooth], "sky,road")  # one bad file does not make white what does not count
    assert coding.codes == {0: 0, 255: 1}
    summary = summarise_mask(smooth)
    assert "it is a JPEG, which mixes" in coding.complaint(coding.unknown(summary), summary)


@pytest.mark.parametrize(
    ("classes", "ignore", "message"),
    [
        ("a,b,a", None, "two classes have the name a"),
        ("0", None, "there must be 1 to 254 classes"),
        ("a,b", "void", "--ignore void is not possible"),
        ("[{name: a, colour: [0, 0]}]", None, "a colour is"),
        ("[{name: a, color: '#000000'}, b]", None, "a has a colour, b has none"),
        ("{classes: [a], ignored: 3}", None, "unknown key 'ignored'"),
        ("{classes: [a], ignore: -1}", None, "from 0 to 65,535, not -1"),
        ("[{name: a, valeu: 3}]", None, "unknown key 'valeu'"),
    ],
)
def test_descriptions_that_cannot_be_right(tmp_path, classes, ignore, message):
    if classes[0] in "[{":
        (tmp_path / "classes.yaml").write_text(classes)
        classes = str(tmp_path / "classes.yaml")
    with pytest.raises(OptionError, match=re.escape(message)):
        read_mask_classes(classes, ignore)


def test_more_names_than_a_path_has_room_for():
    names = [f"kind of thing number {number}" for number in range(200)]
    assert read_mask_classes(",".join(names), None).names == tuple(names)


def test_size_of_a_turned_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert picture_size(tmp_path / "a.jpg") == (8, 4)

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vggtransfer.data.fixed_views import SHIFT, Crops, DrawnViews, FixedViews, Mirror, Plain, augmentation
from vggtransfer.data.transforms import Transform, evaluation_transform, sample_seed
from vggtransfer.errors import OptionError

KEYS = [sample_seed(0, epoch, index) for epoch in range(20) for index in range(20)]


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("views", "count"),
    [
        (augmentation("none", 32), 1),
        (augmentation("mirror", 32), 2),
        (augmentation("crops", 32), 18),
        (augmentation("strong", 32, views=5), 5),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_picture_has_so_many_views_and_each_is_found_at_its_place(views: FixedViews, count: int, picture) -> None:
    assert isinstance(views, FixedViews)
    assert views.views == count
    squares = [views.square(picture, number) for number in range(views.squares)]
    seen = Counter()
    for key in KEYS:
        view = views(picture, key=key)
        assert view.shape == (32, 32, 3)
        place = views.place(key)
        square = squares[place.square]
        assert square.shape == (views.square_side, views.square_side, 3)
        assert np.array_equal(view, square[place.top : place.top + 32, place.left : place.left + 32])
        seen[view.tobytes()] += 1
    assert len(seen) == count
    assert min(seen.values()) > len(KEYS) / count / 3  # all of them are drawn, none much more rarely than the others


@pytest.mark.parametrize("size", [32, 96])
def test_mirror_and_crops_show_things_as_large_as_evaluation_does(size: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (110, 130, 3), dtype=np.uint8)
    plain = evaluation_transform(size)(picture, key=0)
    assert np.array_equal(Mirror(size).square(picture, 0), plain)
    assert np.array_equal(Mirror(size).square(picture, 1), plain[:, ::-1])
    square = Crops(size).square(picture, 0)
    inner = slice(SHIFT, SHIFT + size)
    assert np.array_equal(square[inner, inner], plain)
    assert np.array_equal(Crops(size).square(picture, 1), square[:, ::-1])


def test_crops_continue_the_picture_by_reflection_where_it_ends(picture) -> None:
    square = Crops(32).square(picture, 0)
    assert np.array_equal(square[: SHIFT + 1], square[2 * SHIFT : SHIFT - 1 : -1])
    assert not np.array_equal(square[:SHIFT], np.zeros_like(square[:SHIFT]))


def test_drawn_views_depend_on_seed_and_pixels_but_not_on_the_place_in_the_list(picture) -> None:
    one, other = augmentation("light", 32, views=3, seed=1), augmentation("light", 32, views=3, seed=2)
    assert isinstance(one, DrawnViews)
    assert np.array_equal(one.square(picture, 2), one.square(picture.copy(), 2))
    assert not np.array_equal(one.square(picture, 2), other.square(picture, 2))
    assert one.steps != other.steps
    assert not np.array_equal(one.square(picture, 1), one.square(picture, 2))


def test_without_a_number_random_augmentation_stays_endless() -> None:
    assert isinstance(augmentation("light", 32), Transform)
    assert isinstance(augmentation("none", 32), Plain)


@pytest.mark.parametrize(
    ("preset", "size", "views", "words"),
    [
        ("mirror", 32, 3, "which has 2"),
        ("none", 32, 3, "is not; leave it out"),
        ("crops", 40, None, "multiple of 16, not 40"),
        ("mirrors", 32, None, "did you mean 'mirror'"),
    ],
)
def test_mistakes_are_named(preset: str, size: int, views: int | None, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        augmentation(preset, size, views=views)

from pathlib import Path

import pytest
from PIL import Image

from vggtransfer.comparison.pictures import limited, load_compared_pictures
from vggtransfer.data.folders import Sample
from vggtransfer.errors import OptionError


def samples(*counts):
    root = Path("data")
    return [Sample(root / f"{label}" / f"{i}.png", label) for label, count in enumerate(counts) for i in range(count)]


def draw(count, seed=0, counts=(100, 50, 10)):
    return limited(samples(*counts), count, root=Path("data"), seed=seed)


@pytest.mark.parametrize("count", [3, 16, 80, 160, 1000])
def test_limit_keeps_the_proportions_of_the_classes(count):
    chosen = draw(count)
    assert len(chosen) == min(count, 160)
    for label, size in enumerate((100, 50, 10)):
        share = sum(sample.label == label for sample in chosen)
        assert share >= 1
        assert abs(share - size * len(chosen) / 160) <= 1


def test_a_smaller_draw_is_part_of_a_larger_one_and_keeps_the_order():
    assert set(draw(20)) < set(draw(40))
    everything = samples(100, 50, 10)
    assert [everything.index(sample) for sample in draw(40)] == sorted(everything.index(sample) for sample in draw(40))


def test_seed_chooses_other_pictures():
    assert draw(20) == draw(20)
    assert set(draw(20)) != set(draw(20, seed=1))


def write(root, **splits):
    for split, count in splits.items():
        for label, colour in enumerate(("blue", "red")):
            folder = root / split.strip("_") / colour
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                name = f"{split}-{number}"
                Image.new("RGB", (8, 8), (40 * label, len(split), number)).save(folder / f"{name}.png")


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": 10, "test": 4}, ("test", 20, 8)),  # nothing is set aside of train
        ({"train": 10, "val": 3, "test": 4}, ("test", 20, 8)),
        ({"train": 10, "val": 3}, ("val", 20, 6)),
        ({"train": 1, "test": 4}, ("test", 2, 8)),
        ({"train": 10}, ("set aside", 16, 4)),
    ],
)
def test_test_comes_from_test_else_val_else_a_part(tmp_path, monkeypatch, splits, expected):
    split, train, test = expected
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "data", **splits)
    found = load_compared_pictures(tmp_path / "data", limit=None, seed=0, progress=False)
    assert (found.split, len(found.pictures.train), len(found.pictures.val)) == (split, train, test)
    assert found.available == train
    names = {sample.path for sample in found.pictures.train} & {sample.path for sample in found.pictures.val}
    assert not names
    assert [row["split"] for row in found.rows()] == ["train"] * train + ["test"] * test


def test_flat_folder_and_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    write(tmp_path, data=10)
    found = load_compared_pictures(tmp_path / "data", limit=6, seed=0, progress=False)
    assert found.counts == "6 of 16 training and 4 test pictures of 2 classes"
    with pytest.raises(OptionError, match="--train-limit 1 is fewer than the 2 classes"):
        load_compared_pictures(tmp_path / "data", limit=1, seed=0, progress=False)

import numpy as np
import pytest

from vggtransfer.data.masked_transforms import IGNORED, MASKED_PRESETS, MaskedTransform, resize_mask
from vggtransfer.data.seen_size import SeenSize, parse_seen_size
from vggtransfer.errors import OptionError

SEEN = SeenSize(short_side=48)


def shapes():
    """A picture whose red channel tells the class of each pixel, and its mask."""
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 20:60], mask[25:60, 50:90] = 1, 2
    picture = np.full((60, 90, 3), 128, np.uint8)
    picture[..., 0] = mask * 100
    return picture, mask


@pytest.mark.parametrize("preset", MASKED_PRESETS)
def test_pictures_and_masks_go_together(preset, tmp_path):
    picture, mask = shapes()
    transform = MaskedTransform(preset, seen=SEEN, crop=(48, 40))
    seen = set()
    for key in range(12):
        image, cut = transform(picture, mask, key=key)
        assert (image.shape, cut.shape, image.dtype, cut.dtype) == ((48, 40, 3), (48, 40), np.uint8, np.uint8)
        assert set(np.unique(cut)) <= ({0, 1, 2, IGNORED} if preset in ("standard", "strong") else {0, 1, 2})
        again = transform(picture, mask, key=key)
        assert np.array_equal(image, again[0])
        assert np.array_equal(cut, again[1])
        seen.add(cut.tobytes())
        if preset in ("none", "flip"):  # no colours changed: the picture tells what the mask must be
            agree = np.abs(image[..., 0].astype(int) - 100 * cut.astype(int)) < 50
            assert agree.mean() > 0.95
    assert len(seen) > 6


def test_what_moves_in_from_outside_does_not_count(tmp_path):
    file = tmp_path / "turned.yaml"
    file.write_text("- Rotate: {limit: [45, 45], p: 1}\n")
    picture, mask = shapes()
    cut = MaskedTransform(file, seen=SEEN, crop=(48, 72))(picture, mask, key=0)[1]
    assert cut[0, 0] == IGNORED
    assert set(np.unique(cut)) <= {0, 1, 2, IGNORED}


def test_masks_of_many_classes_and_small_pictures():
    picture, mask = shapes()
    layers = np.stack([mask == 1, mask == 2, *[np.zeros_like(mask)] * 4], axis=-1).astype(np.uint8)
    image, cut = MaskedTransform("standard", seen=SeenSize(), crop=(128, 200))(picture, layers, key=3)
    assert (image.shape, cut.shape) == ((128, 200, 3), (128, 200, 6))
    assert set(np.unique(cut)) == {0, 1, IGNORED}
    outside = (cut == IGNORED).all(axis=-1)
    assert ((cut == IGNORED).any(axis=-1) == outside).all()
    assert outside.mean() > 0.4


def test_masks_take_the_value_at_the_centre():
    mask = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert resize_mask(mask, 2, 2).tolist() == [[5, 7], [13, 15]]
    assert resize_mask(mask, 8, 8)[::2, ::2].tolist() == mask.tolist()


def test_sizes():
    assert parse_seen_size("image-size", 48).of(60, 90) == (48, 72)
    assert parse_seen_size("image-size", "240x180").of(60, 90) == (180, 240)
    assert parse_seen_size("image-size", "none").of(60, 90) == (60, 90)
    with pytest.raises(OptionError, match="--image-size 7 is not possible"):
        parse_seen_size("image-size", 7)
    with pytest.raises(OptionError, match="did you mean 'strong'"):
        MaskedTransform("strongg", seen=SEEN, crop=(48, 48))


def test_all_changes_of_shape_move_both_alike(tmp_path):
    file = tmp_path / "shapes.yaml"
    file.write_text(
        "- RandomScale: {scale_limit: [-0.3, 0.6], p: 1}\n- Rotate: {limit: [-30, 30], border_mode: 4, p: 1}\n"
        "- RandomResizedCrop: {scale: [0.4, 0.9]}\n- Affine: {shear: [-8, 8], translate_percent: 0.1, p: 1}\n"
        "- VerticalFlip\n"
    )
    picture, mask = shapes()
    transform = MaskedTransform(file, seen=SEEN, crop=(48, 64))
    for key in range(8):
        image, cut = transform(picture, mask, key=key)
        counted = cut != IGNORED
        agree = np.abs(image[..., 0].astype(int) - 100 * cut.astype(int)) < 50
        assert agree[counted].mean() > 0.93
        assert counted.mean() > 0.5

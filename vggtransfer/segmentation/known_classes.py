"""The classes of public data sets whose layout tells which they are."""

from __future__ import annotations

from vggtransfer.segmentation.layouts import Layout
from vggtransfer.segmentation.mask_classes import Colour, MaskClass, MaskClasses, numbered_classes

_VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
# Name, number in *_labelIds.png, colour (Cordts et al. 2016); the number in *_labelTrainIds.png is the position.
_CITYSCAPES: tuple[tuple[str, int, Colour], ...] = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)


def known_classes(layout: Layout) -> MaskClasses | None:
    """The classes that Pascal VOC and Cityscapes are scored on; None for other layouts."""
    if layout.name == "Pascal VOC":
        return numbered_classes(_VOC)
    if layout.name != "Cityscapes":
        return None
    train_ids = all(
        mask.stem.endswith("labelTrainIds") for found in layout.splits.values() for one in found for mask in one.masks
    )
    classes = tuple(
        MaskClass(name, (number if train_ids else label,), (colour,))
        for number, (name, label, colour) in enumerate(_CITYSCAPES)
    )
    others = sorted(set(range(34)) - {label for _, label, _ in _CITYSCAPES})
    return MaskClasses(classes, (255,) if train_ids else (*others, 255), given_values=True, given_ignored=True)

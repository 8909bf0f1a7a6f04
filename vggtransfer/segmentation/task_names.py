"""What masks say and what is minimised; apart from `losses.py`, because command lines are parsed without torch."""

from typing import Literal

SegmentationTask = Literal["multiclass", "multilabel", "binary"]
"""`"multiclass"`: each pixel has one of several classes. `"multilabel"`: each class is there or not, by itself.
`"binary"`: one class, there or not."""

LossName = Literal["ce", "dice", "focal", "lovasz", "ce+dice", "ce+lovasz", "focal+dice", "focal+lovasz"]

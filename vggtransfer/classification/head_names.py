"""The heads that `finetune` offers; apart from `head.py`, because command lines are parsed without torch."""

from typing import Literal

PlainHeadName = Literal["linear", "mlp", "vgg"]
HeadName = Literal["linear", "mlp", "vgg", "arcface"]

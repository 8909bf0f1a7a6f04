"""The networks that `segment` offers; apart from `model.py`, because command lines are parsed without torch."""

from typing import Literal

DecoderName = Literal["unet", "fcn32s", "fcn16s", "fcn8s", "deeplab-largefov", "deeplab-aspp"]

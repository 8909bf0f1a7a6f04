"""How a network may look at pictures; apart from `inference.py`, because command lines are parsed without torch."""

from typing import Literal

TTA = Literal["none", "flip"]
"""Test-time augmentation: `flip` averages a picture's probabilities with those of its mirror image."""

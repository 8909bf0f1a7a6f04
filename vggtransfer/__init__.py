"""Transfer learning and feature extraction with VGG networks."""

__version__ = "0.1.0"

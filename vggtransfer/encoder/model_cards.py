"""What is known of the weights that are part of this package: data, recipe, accuracy, licence and limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vggtransfer.recipe_files import read_yaml


def read_card(weights: Path) -> Mapping[str, str]:
    """Returns the model card beside a weights file, heading by heading; empty if there is none."""
    path = weights.with_suffix(".yaml")
    content = read_yaml(path) if path.exists() else {}
    assert isinstance(content, dict)  # it is ours
    return {str(name): " ".join(str(text).split()) for name, text in content.items()}

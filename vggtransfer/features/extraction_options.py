"""The options of `extract`, checked before anything expensive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vggtransfer.errors import DataError, OptionError
from vggtransfer.features.encoder_choice import DEFAULT_ARCHITECTURE, DEFAULT_IMAGE_SIZE
from vggtransfer.features.layer_choice import feature_shapes


def check_options(given: Mapping[str, Any]) -> None:
    """Finds the mistakes that can be found without reading pictures, loading weights or importing torch.

    Raises:
        OptionError: An option has a value that cannot be used.
        DataError: The data folder does not exist.
    """
    if given["batch_size"] < 1:
        raise OptionError(f"batch_size={given['batch_size']} is not possible: it must be at least 1")
    if given["workers"] is not None and given["workers"] < 0:
        raise OptionError(f"workers={given['workers']} is not possible: it must be at least 0 (reads in this process)")
    fraction = given["crop_fraction"]
    if fraction is not None and not 0 < fraction <= 1:
        raise OptionError(f"crop_fraction={fraction} is not possible: it must be above 0 and at most 1")
    if given["model"] is None:
        size = DEFAULT_IMAGE_SIZE if given["image_size"] is None else given["image_size"]
        feature_shapes(given["arch"] or DEFAULT_ARCHITECTURE, given["layers"], image_size=size, pool=given["pool"])
    elif given["arch"] is not None or given["weights"] != "default":
        name = "weights" if given["arch"] is None else "arch"
        raise OptionError(f"--model brings its own encoder; leave out --{name} {given[name]}, or --model")
    if not given["data"].expanduser().is_dir():
        raise DataError(f"--data {given['data']}: there is no such folder")

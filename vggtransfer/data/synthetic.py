"""A data set of painted flowers, for demonstrations and tests that may download nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vggtransfer.data.flowers.picture import SPECIES, draw_flower
from vggtransfer.errors import OptionError

__all__ = ["SPECIES", "draw_flower", "write_synthetic_flowers"]

_LABEL = "synthetic-flowers.json"


def write_synthetic_flowers(
    directory: Path,
    *,
    train: int = 40,
    val: int = 10,
    test: int = 10,
    image_size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a data set of painted flowers with segmentation masks.

        DIR/train|val|test/SPECIES/0000.png          the pictures, RGB
        DIR/masks/train|val|test/SPECIES/0000.png    the class of each pixel: 0 background, 1 the first of SPECIES, ...
        DIR/synthetic-flowers.json                   how it was made

    Writing the same again gives the same bytes.

    Args:
        directory: A new or empty folder, or one that this function wrote before, whose pictures are replaced.
        train: Pictures per species in the training split.
        val: Pictures per species in the validation split.
        test: Pictures per species in the test split.
        image_size: Side of the pictures in pixels, at least 16.
        seed: Another seed gives other pictures.
        progress: Called with the number of pictures written and that of all after each of them.

    Returns:
        The folder.

    Raises:
        OptionError: A value is out of range, or the folder holds something else or cannot be made.
    """
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if count < 0:
            raise OptionError(f"{split} must not be negative, but is {count}")
    if image_size < 16:
        raise OptionError(f"image_size must be at least 16 pixels, not {image_size}")
    if seed < 0:
        raise OptionError(f"seed must not be negative, but is {seed}")
    directory = Path(directory)
    _claim(directory)
    made = {
        "made_by": "vggtransfer.data.synthetic.write_synthetic_flowers",
        "seed": seed,
        "image_size": image_size,
        "pictures_per_species": counts,
        "mask_values": {"background": 0} | {species: number for number, species in enumerate(SPECIES, start=1)},
    }
    (directory / _LABEL).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    total = len(SPECIES) * sum(counts.values())
    done = 0
    for split_number, (split, count) in enumerate(counts.items()):
        for species_number, species in enumerate(SPECIES):
            pictures, masks = directory / split / species, directory / "masks" / split / species
            if count:
                pictures.mkdir(parents=True, exist_ok=True)
                masks.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                entropy = np.random.SeedSequence([seed, split_number, species_number, index])
                image, mask = draw_flower(species, size=image_size, seed=int(entropy.generate_state(1, np.uint64)[0]))
                name = f"{index:04d}.png"
                Image.fromarray(image).save(pictures / name, compress_level=4)
                Image.fromarray(mask).save(masks / name)
                done += 1
                if progress is not None:
                    progress(done, total)
    return directory


def _claim(directory: Path) -> None:
    """Makes the folder, or removes the pictures of an earlier run from it; refuses what is not ours."""
    if directory.exists() and not directory.is_dir():
        raise OptionError(f"{directory} is a file; give a new or empty folder")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        empty = not any(directory.iterdir())
    except OSError as error:
        raise OptionError(f"{directory} cannot be made: {error.strerror}; give another folder") from None
    if empty:
        return
    if not (directory / _LABEL).is_file():
        raise OptionError(f"{directory} is not empty and holds no synthetic flowers; give a new or empty folder")
    for place in (directory, directory / "masks"):
        for split in ("train", "val", "test"):
            for species in SPECIES:
                folder = place / split / species
                for picture in folder.glob("*.png"):
                    if picture.stem.isdigit():
                        picture.unlink()
                # An empty folder would count as a class without pictures.
                for emptied in (folder, folder.parent):
                    if emptied.is_dir() and not any(emptied.iterdir()):
                        emptied.rmdir()

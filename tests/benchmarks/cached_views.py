"""What accuracy costs to compute once: python tests/benchmarks/cached_views.py DATA

Trains block5 of the embedded network with several augmentations, with a new draw in each epoch (uncached) and with a
fixed number of views of each picture (cached). Each seed sets other pictures of DATA aside for testing. Prints the mean
accuracy over the seeds, the mean difference to the first arm on the same split with its standard error, and the median
seconds of a run that finds no maps of others.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from vggtransfer import finetune

ARMS: dict[str, dict[str, Any]] = {
    "standard, a new draw in each epoch": {"augmentation": "standard"},
    "standard, 8 views, cached": {"augmentation": "standard", "views": 8},
    "light, a new draw in each epoch": {"augmentation": "light"},
    "light, 8 views, cached": {"augmentation": "light", "views": 8},
    "light, 2 views, cached": {"augmentation": "light", "views": 2},
    "crops, uncached": {"augmentation": "crops", "cache": "off"},
    "crops, cached": {"augmentation": "crops"},
    "mirror, uncached": {"augmentation": "mirror", "cache": "off"},
    "mirror, cached": {"augmentation": "mirror"},
    "mirror, cached in int8": {"augmentation": "mirror", "cache_precision": "int8"},
    "none, cached": {"augmentation": "none"},
}


def link_pictures(source: Path, count: int, target: Path) -> None:
    """Links `count` pictures of `source`, of each class alike and drawn once for all, as target/CLASS/*."""
    classes: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(source.rglob("*.jpg")):
        classes[path.parent.name].append(path)
    for name, paths in classes.items():
        (target / name).mkdir(parents=True)
        for number, path in enumerate(random.Random(0).sample(paths, min(len(paths), count // len(classes)))):
            (target / name / f"{number:05}.jpg").symlink_to(path.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with CLASS/*.jpg at any depth")
    parser.add_argument("--pictures", type=int, default=960, help="of all classes together")
    parser.add_argument("--val-fraction", type=float, default=0.25)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args()
    first: list[float] = []
    print("| augmentation | accuracy | difference | standard error | seconds |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VGGTRANSFER_CACHE"] = scratch
        link_pictures(options.data, options.pictures, pictures := Path(scratch) / "pictures")
        for name in options.arms:
            accuracies, seconds = [], []
            for seed in range(options.seeds):
                shutil.rmtree(Path(scratch) / "maps", ignore_errors=True)
                began = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory(dir=scratch) as out:
                    result = finetune(
                        pictures,
                        arch="vgg16_bn_x0_25",
                        image_size=options.image_size,
                        val_fraction=options.val_fraction,
                        epochs=options.epochs,
                        lr=options.lr,
                        seed=seed,
                        out=Path(out) / "run",
                        **ARMS[name],
                    )
                accuracies.append(100 * float(result.history[-1]["val_accuracy"]))
                seconds.append(time.perf_counter() - began)
            first = first or accuracies
            differences = [accuracy - other for accuracy, other in zip(accuracies, first, strict=True)]
            error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
            print(
                f"| {name} | {statistics.mean(accuracies):.2f} | {statistics.mean(differences):+.2f} | {error:.2f} "
                f"| {statistics.median(seconds):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What accuracy costs to compute once: python tests/benchmarks/cached_views.py DATA [--seeds 5]

Trains block5 of the embedded network on DATA/train and scores it on DATA/val with several augmentations, with a new
draw in each epoch (uncached) and with a fixed number of views of each picture (cached). Prints the mean accuracy over
the seeds, its standard error, and the median seconds of a run that finds no maps of others. Use some thousand pictures
to test on: with 240, one picture is 0.4 points.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from vggtransfer import finetune

ARMS: dict[str, dict[str, Any]] = {
    "none": {"augmentation": "none"},
    "mirror": {"augmentation": "mirror"},
    "crops, cached": {"augmentation": "crops"},
    "crops, uncached": {"augmentation": "crops", "cache": "off"},
    "light, uncached": {"augmentation": "light"},
    "light, 2 views": {"augmentation": "light", "views": 2},
    "light, 4 views": {"augmentation": "light", "views": 4},
    "light, 8 views": {"augmentation": "light", "views": 8},
    "standard, uncached": {"augmentation": "standard"},
    "standard, 4 views": {"augmentation": "standard", "views": 4},
    "standard, 8 views": {"augmentation": "standard", "views": 8},
    "mirror, int8": {"augmentation": "mirror", "cache_precision": "int8"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args()
    print("| augmentation | accuracy | standard error | seconds |\n| --- | --- | --- | --- |")
    if not (options.data / "val").is_dir():
        raise SystemExit(f"{options.data} has no folder val")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VGGTRANSFER_CACHE"] = scratch
        for name in options.arms:
            accuracies, seconds = [], []
            for seed in range(options.seeds):
                shutil.rmtree(Path(scratch) / "maps", ignore_errors=True)
                began = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory(dir=scratch) as out:
                    result = finetune(
                        options.data,
                        arch="vgg16_bn_x0_25",
                        image_size=options.image_size,
                        epochs=options.epochs,
                        lr=options.lr,
                        seed=seed,
                        out=Path(out) / "run",
                        **ARMS[name],
                    )
                accuracies.append(100 * float(result.history[-1]["val_accuracy"]))
                seconds.append(time.perf_counter() - began)
            error = statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else float("nan")
            print(
                f"| {name} | {statistics.mean(accuracies):.2f} | {error:.2f} | {statistics.median(seconds):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

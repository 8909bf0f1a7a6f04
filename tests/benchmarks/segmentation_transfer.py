"""What pretrained weights and unfreezing are worth for masks: python tests/benchmarks/segmentation_transfer.py CAMVID

Trains the U-Net of recipes/segment/camvid_vgg16_bn_x0_25_cpu.yaml with the encoder frozen, with block5 training, with
all of it training (at a tenth of the decoder's rate, and at that rate), and from random weights; chooses the epoch on
the validation pictures, measures the test pictures in full size. Prints the mean test IoU of each seed, their mean, the
mean difference to the first arm with its standard error, and the median seconds of a training.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from vggtransfer import segment, segment_evaluate
from vggtransfer.recipe_files import read_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "segment" / "camvid_vgg16_bn_x0_25_cpu.yaml"
ARMS: dict[str, dict[str, Any]] = {
    "frozen": {"unfreeze": "none", "backbone_lr": None},
    "block5": {"unfreeze": "block5", "backbone_lr": None},
    "all, at a tenth of the decoder's rate": {"unfreeze": "all", "backbone_lr": None},
    "all, at the decoder's rate": {"unfreeze": "all"},
    "all, from random weights": {"unfreeze": "all", "weights": "none"},
}


def trained_iou(data: Path, recipe: dict[str, Any], seed: int) -> tuple[float, float]:
    """Returns the mean test IoU in percent, and the seconds of the training."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        began = time.perf_counter()
        run = segment(data, **recipe, seed=seed, out=Path(scratch) / "run").run
        seconds = time.perf_counter() - began
        scores = segment_evaluate(data, model=run, split="test", out=Path(scratch) / "test").scores
    return 100 * scores.mean_iou, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="CamVid, as SPLIT/images and SPLIT/masks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args()
    recipe: dict[str, Any] = read_recipe(RECIPE)
    if options.epochs is not None:
        recipe["epochs"] = options.epochs
    first: list[float] = []
    print("| encoder | by seed | mean | difference | standard error | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for name in options.arms:
        found = [trained_iou(options.data, {**recipe, **ARMS[name]}, seed) for seed in options.seeds]
        scores = [score for score, _ in found]
        first = first or scores
        differences = [score - other for score, other in zip(scores, first, strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
        print(
            f"| {name} | {' '.join(f'{score:.2f}' for score in scores)} | {statistics.mean(scores):.2f} "
            f"| {statistics.mean(differences):+.2f} | {error:.2f} | {statistics.median(s for _, s in found):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

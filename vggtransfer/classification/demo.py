"""`vggtransfer demo`: the main job from pictures to predictions in a few minutes, without any download."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class DemoResult:
    """Where the demo wrote, and the accuracies it reached, 0 to 1."""

    directory: Path
    validation_accuracy: float
    test_accuracy: float


def demo(*, out: Path | None = None, image_size: int = 96, epochs: int = 25, seed: int = 0) -> DemoResult:
    """Shows the main job: draws flowers, fine-tunes on them, evaluates, predicts.

    Every step is printed as the command that does it, and then run.

    Args:
        out: Folder for everything it writes; default: `runs/demo/N` with the next free N.
        image_size: Side of the drawn pictures, in pixels.
        epochs: Epochs of fine-tuning.
        seed: Seed of the drawing and the training.
    """
    from vggtransfer.classification.evaluation import evaluate
    from vggtransfer.classification.fit_options import check_recipe
    from vggtransfer.classification.prediction import predict
    from vggtransfer.classification.recipe import finetune
    from vggtransfer.data.synthetic import SPECIES, write_synthetic_flowers
    from vggtransfer.training.run_directory import create_run_directory

    training: dict[str, Any] = {
        "arch": "vgg16_bn_x0_25",
        "unfreeze": "block5",
        "image_size": image_size,
        "epochs": epochs,
        "lr": 5e-3,
        "dropout": 0.0,
        "augmentation": "mirror",
        "seed": seed,
    }
    defaults = {name: parameter.default for name, parameter in inspect.signature(finetune).parameters.items()}
    check_recipe({**defaults, **training, "data": Path()})  # before anything is drawn
    directory = create_run_directory("demo", out)
    flowers, run = directory / "flowers", directory / "finetune"
    print(f"Drawing {len(SPECIES)} species of flowers into {flowers}/ (train, val and test; masks beside them)")
    write_synthetic_flowers(flowers, train=60, val=15, test=15, image_size=image_size, seed=seed)
    print(
        "\nvgg16_bn_x0_25 is VGG16 with BatchNorm at a quarter of its width. Its weights, pretrained on 100,000 small\n"
        "photographs, are part of the package. Blocks 1 to 4 stay as they are; block5 learns, and a new head."
    )
    trained = _step(finetune, data=flowers, **training, out=run)
    evaluated = _step(evaluate, data=flowers, model=run, out=directory / "evaluation")
    new = sorted((flowers / "test").glob("*/*"))[:: max(1, 15 * len(SPECIES) // 6)][:6]
    _step(predict, paths=[str(path) for path in new], model=run, top_k=3)
    print(f"\nEverything is in {directory}/. Now with your own pictures, one folder per class:")
    print("  vggtransfer finetune --data ./flowers --unfreeze block5")
    return DemoResult(directory, trained.best_accuracy, evaluated.scores.top1_accuracy)


def _step(function: Callable[..., T], **options: object) -> T:
    """Prints a call as the command a user would type, and makes it."""
    words = ["vggtransfer", function.__name__]
    for name, value in options.items():
        values = (
            [str(item) for item in value] if isinstance(value, list) else [f"--{name.replace('_', '-')}", str(value)]
        )
        words += values
    print(f"\n$ {shlex.join(words)}", flush=True)
    return function(**options)

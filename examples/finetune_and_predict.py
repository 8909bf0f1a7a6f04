"""Fine-tunes a classifier and uses it, from Python: python examples/finetune_and_predict.py

Runs without any download: on flowers that it draws itself, with the small network whose weights are in the package. For
your own pictures give `finetune` a folder with one folder per class, and leave out `arch` (then it is vgg16, whose
weights are downloaded) and the numbers that keep it short.
"""

import argparse
from pathlib import Path

from vggtransfer import evaluate, finetune, predict
from vggtransfer.data.synthetic import write_synthetic_flowers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example-finetune"))
    parser.add_argument("--pictures", type=int, default=40, help="training pictures of each species")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()

    flowers = write_synthetic_flowers(options.out / "flowers", train=options.pictures, val=8, test=8, image_size=64)
    trained = finetune(
        flowers,
        arch="vgg16_bn_x0_25",
        unfreeze="block5",
        image_size=64,
        epochs=options.epochs,
        lr=5e-3,
        out=options.out / "run",
    )
    scores = evaluate(flowers, model=trained.run, out=options.out / "evaluation").scores
    print(f"test accuracy {scores.top1_accuracy:.1%} after {options.epochs} epochs")
    for picture, label in predict([str(flowers / "test" / "daisy")], model=trained.run).labels.items():
        print(picture, "is a", label)


if __name__ == "__main__":
    main()

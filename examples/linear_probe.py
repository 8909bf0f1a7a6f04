"""How much do frozen features know? python examples/linear_probe.py DATA

Trains a logistic regression on the global averages of the last three blocks' feature maps, on the pictures of
DATA/train, and scores it on DATA/test; beside it the same on random features and on colour histograms. A backbone that
does not beat those has learnt nothing worth transferring. Square roots are taken of all of them, since a few channels
that answer strongly would outweigh the rest (as in RootSIFT, Arandjelovic & Zisserman 2012). The strength of the
regularisation is chosen by cross-validation within the training pictures.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from vggtransfer import VGGEncoder
from vggtransfer.data.dataset import PictureDataset
from vggtransfer.data.folders import read_split
from vggtransfer.data.transforms import evaluation_transform

LAYERS = ("relu3_3", "relu4_3", "relu5_3")


def load(data: Path, split: str, *, image_size: int) -> tuple[torch.Tensor, np.ndarray]:
    """Returns pictures uint8 [count, 3, image_size, image_size] and labels [count]."""
    _, samples = read_split(data, split=split)
    pictures = PictureDataset(samples, evaluation_transform(image_size), seed=0)
    return torch.stack([pictures[index][0] for index in range(len(pictures))]), np.array([s.label for s in samples])


@torch.inference_mode()
def features(encoder: VGGEncoder, pictures: torch.Tensor) -> np.ndarray:
    """Returns the averages of the maps [count, channels], averaged once more over each picture and its mirror image."""
    rows = []
    for batch in pictures.split(64):
        images = batch.float() / 255
        for views in (images, images.flip(3)):
            maps = encoder(views)
            rows.append(torch.cat([tap.mean(dim=(2, 3)) for tap in maps], dim=1))
    return torch.cat([(one + mirrored) / 2 for one, mirrored in zip(rows[::2], rows[1::2], strict=True)]).numpy()


def histograms(pictures: torch.Tensor) -> np.ndarray:
    """Returns counts of 8 x 8 x 8 colours [count, 512]."""
    colours = (pictures.long() // 32).flatten(2)
    bins = colours[:, 0] * 64 + colours[:, 1] * 8 + colours[:, 2]
    return torch.stack([torch.bincount(row, minlength=512) for row in bins]).numpy()


def probe(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> str:
    """Returns the test accuracy of a logistic regression, and that of five-fold cross-validation over all pictures."""
    model = make_pipeline(FunctionTransformer(np.sqrt), StandardScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(model, {"logisticregression__C": np.logspace(-4, 0, 5)}, cv=5)
    everything, labels = np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
    with threadpool_limits(limits=1):  # on matrices as small as these, threads mostly wait for each other
        score = search.fit(train, train_labels).score(test, test_labels)
        folds = cross_val_score(search, everything, labels, cv=StratifiedKFold(5, shuffle=True, random_state=0))
    return f"test accuracy {score:.1%}, five-fold cross-validation over all pictures {folds.mean():.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--arch", default="vgg16_bn_x0_25")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--image-size", type=int, default=112)
    options = parser.parse_args()

    train, train_labels = load(options.data, "train", image_size=options.image_size)
    test, test_labels = load(options.data, "test", image_size=options.image_size)
    print(f"{len(train)} training and {len(test)} test pictures, {options.image_size} pixels")
    for name, weights in ((options.weights, options.weights), ("random", None)):
        torch.manual_seed(0)
        encoder = VGGEncoder(options.arch, weights=weights, layers=LAYERS, unfreeze="none").eval()
        score = probe(features(encoder, train), train_labels, features(encoder, test), test_labels)
        print(f"{options.arch}, {name} weights: {score}", flush=True)
    score = probe(histograms(train), train_labels, histograms(test), test_labels)
    print(f"colour histograms: {score}")


if __name__ == "__main__":
    main()

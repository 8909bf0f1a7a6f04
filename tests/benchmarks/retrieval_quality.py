"""How good the embeddings are: python tests/benchmarks/retrieval_quality.py FLOWERS12 CIFAR10 PHOTOGRAPHS

Two labelled collections, each picture searched for among all others: flowers12's 240 test pictures, and 2,000 of
CIFAR-10's test pictures (every fifth). Whitening is learnt on the training pictures (720, and 5,000). The
layers, the pooling, the size and the shrinkage were chosen on flowers12's training pictures, nothing on what is
reported.

Then copies: each of 1,000 photographs is cropped, turned, compressed, blurred or recoloured, and the result is searched
for among the originals.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from vggtransfer.data.picture_files import find_pictures
from vggtransfer.features.given_pictures import GivenPicture, read_picture
from vggtransfer.features.pooling import PoolName
from vggtransfer.retrieval.embedder import Embedder
from vggtransfer.retrieval.evaluation import score_by_label
from vggtransfer.retrieval.exact_search import ExactSearch
from vggtransfer.retrieval.expansion import augment_vectors, expand_queries
from vggtransfer.retrieval.reranking import k_reciprocal_distances
from vggtransfer.retrieval.whitening import learned_whitening, pairs_of_labels, pca_whitening, unit_rows

ARCH = "vgg16_bn_x0_25"
POOLS: tuple[PoolName, ...] = ("gap", "max", "gem", "rmac", "crow")
DIMENSION = 64

Vectors = NDArray[np.float32]
Method = Callable[[Sequence[GivenPicture]], Vectors]


def squares(pictures: Sequence[GivenPicture], size: int) -> NDArray[np.uint8]:
    return np.stack([read_picture(picture, image_size=size, crop_fraction=1.0) for picture in pictures])


def raw_pixels(pictures: Sequence[GivenPicture]) -> Vectors:
    """32 x 32 pixels, less the picture's mean: their inner product is the correlation."""
    flat = squares(pictures, 32).reshape(len(pictures), -1).astype(np.float32)
    return unit_rows(flat - flat.mean(axis=1, keepdims=True))


def histograms(pictures: Sequence[GivenPicture]) -> Vectors:
    """Square roots of the counts of 8 x 8 x 8 colours."""
    colours = squares(pictures, 112).astype(np.int64) // 32
    bins = (colours @ (64, 8, 1)).reshape(len(pictures), -1)
    return unit_rows(np.sqrt(np.stack([np.bincount(row, minlength=512) for row in bins])).astype(np.float32))


def methods() -> dict[str, Method]:
    found: dict[str, Method] = {"raw pixels, 32 x 32": raw_pixels, "RGB histogram, 512 bins": histograms}
    for layer in ("pool5", "relu4_3"):
        for pool in POOLS:
            found[f"{layer}, {pool}"] = Embedder(ARCH, layer=layer, pool=pool).embed_pictures
    for pool in ("gem", "rmac"):
        found[f"relu3_3 + relu4_3, {pool}"] = Embedder(ARCH, pool=pool).embed_pictures
    return found


def label_scores(vectors: Vectors, labels: Sequence[str]) -> str:
    scores = score_by_label(vectors, labels, ks=(1,))
    return f"{scores.recall[1]:.1%} / {scores.mean_average_precision:.1%}"


def labelled(folder: Path, *, every: int) -> tuple[list[Path], list[str]]:
    paths = sorted(folder.rglob("*.jpg"))[::every]
    return paths, [path.parent.name for path in paths]


def report_labels(name: str, data: Path, *, test_every: int, train_every: int) -> None:
    test, labels = labelled(data / "test", every=test_every)
    train, train_labels = labelled(data / "train", every=train_every)
    pairs = pairs_of_labels(np.array(train_labels), per_picture=20)
    print(f"\n{name}: {len(test)} pictures, whitening learnt on {len(train)}; recall@1 / mAP by label\n")
    print(f"| embedding | as it is | PCA to {DIMENSION}, shrunk | PCA to {DIMENSION}, not | learned, {DIMENSION} |")
    print("| --- | --- | --- | --- | --- |")
    for method, embed in methods().items():
        vectors, others = embed(test), embed(train)
        whitenings = (
            pca_whitening(others, dimension=DIMENSION),
            pca_whitening(others, dimension=DIMENSION, shrink=0),
            learned_whitening(others, pairs, dimension=DIMENSION),
        )
        cells = [label_scores(whitening(vectors), labels) for whitening in whitenings]
        print(f"| {method} | {label_scores(vectors, labels)} | {' | '.join(cells)} |", flush=True)
    vectors = Embedder(ARCH).embed_pictures(test)
    _, neighbours = ExactSearch(vectors).search(vectors, k=20)
    augmented = augment_vectors(vectors, neighbours, count=10)
    print(f"\nthe default with database-side augmentation (10): {label_scores(augmented, labels)}")
    queries, gallery = vectors[::2], vectors[1::2]
    codes = np.unique(labels, return_inverse=True)[1]
    plain, reranked = queries @ gallery.T, -k_reciprocal_distances(queries, gallery)
    _, neighbours = ExactSearch(gallery).search(queries, k=10)
    expanded = expand_queries(queries, gallery, neighbours, count=3, alpha=3) @ gallery.T
    print("every second picture searched for among the others:")
    for what, similarities in (("", plain), (", alpha-QE (3)", expanded), (", k-reciprocal re-ranking", reranked)):
        print(f"the default{what}: {similarity_scores(similarities, codes[::2], codes[1::2])}")


def similarity_scores(similarities: Vectors, queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> str:
    """Recall@1 and mAP by label of similarities [queries, gallery]."""
    right = gallery[np.argsort(-similarities, axis=1, kind="stable")] == queries[:, None]
    precision = right.cumsum(axis=1) / np.arange(1, right.shape[1] + 1)
    average = np.where(right, precision, 0).sum(axis=1) / right.sum(axis=1)
    return f"{right[:, 0].mean():.1%} / {average.mean():.1%}"


def cropped(image: Image.Image, part: float, *, corner: bool = False) -> Image.Image:
    width, height = round(image.width * part), round(image.height * part)
    left, top = (0, 0) if corner else ((image.width - width) // 2, (image.height - height) // 2)
    return image.crop((left, top, left + width, top + height))


def turned(image: Image.Image) -> Image.Image:
    """By 10 degrees, what is then outside filled with black."""
    return image.rotate(10, resample=Image.Resampling.BICUBIC)


def compressed(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=30)
    return Image.open(content).convert("RGB")


def recoloured(image: Image.Image) -> Image.Image:
    """Brighter by 20 %, with 20 % less contrast, and half of the saturation."""
    for enhance, factor in ((ImageEnhance.Brightness, 1.2), (ImageEnhance.Contrast, 0.8), (ImageEnhance.Color, 0.5)):
        image = enhance(image).enhance(factor)
    return image


DISTORTIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 30": compressed,
    "blur, radius 1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blur, radius 2": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "colour": recoloured,
    "central 80 % crop": lambda image: cropped(image, 0.8),
    "corner 80 % crop": lambda image: cropped(image, 0.8, corner=True),
    "central 50 % crop": lambda image: cropped(image, 0.5),
    "turned by 10 degrees": turned,
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def report_copies(photographs: Path) -> None:
    originals = [Image.open(path).convert("RGB") for path in find_pictures(photographs)[0]]
    print(f"\n{len(originals)} photographs, distorted copies searched for among the originals: recall@1\n")
    chosen = methods()
    chosen = {name: chosen[name] for name in chosen if not name.startswith(("pool5, c", "relu4_3, c"))}
    whitened = Embedder(ARCH)
    whitened = whitened.with_whitening(pca_whitening(whitened.embed_pictures(originals), dimension=DIMENSION))
    chosen[f"relu3_3 + relu4_3, rmac, PCA to {DIMENSION}"] = whitened.embed_pictures
    chosen["the same at scales 1 and 0.7, not whitened"] = Embedder(ARCH, scales=(1, 0.7)).embed_pictures
    print(f"| embedding | {' | '.join(DISTORTIONS)} |")
    print("| --- |" + " --- |" * len(DISTORTIONS))
    for name, embed in chosen.items():
        search = ExactSearch(embed(originals))
        cells = []
        for distort in DISTORTIONS.values():
            _, found = search.search(embed([distort(image) for image in originals]), k=1)
            cells.append(f"{(found[:, 0] == np.arange(len(originals))).mean():.1%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("flowers12", "cifar10", "photographs"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report_labels("flowers12", options.flowers12, test_every=1, train_every=1)
    report_copies(options.photographs)
    report_labels("CIFAR-10", options.cifar10, test_every=5, train_every=10)


if __name__ == "__main__":
    main()

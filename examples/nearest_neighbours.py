"""Embeddings in scikit-learn: python examples/nearest_neighbours.py DATA

Classifies the pictures of DATA/test by the labels of their five nearest in DATA/train, with scikit-learn's
k-nearest-neighbours on the vectors that `vggtransfer index` stores and searches, as they are and after a whitening
learnt from the training labels.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from vggtransfer.data.folders import read_split
from vggtransfer.retrieval.embedder import Embedder
from vggtransfer.retrieval.whitening import learned_whitening, pairs_of_labels

data = Path(sys.argv[1])
classes, train = read_split(data, split="train")
_, test = read_split(data, split="test")
train_labels, test_labels = (np.array([sample.label for sample in samples]) for samples in (train, test))

embedder = Embedder("vgg16_bn_x0_25")
vectors, queries = (embedder.embed_pictures([sample.path for sample in samples]) for samples in (train, test))
whitening = learned_whitening(vectors, pairs_of_labels(train_labels, per_picture=20), dimension=min(64, len(train) - 1))

print(
    f"{len(train)} training and {len(test)} test pictures of {len(classes)} classes, {embedder.dimension} numbers each"
)
for name, known, asked in (
    ("as they are", vectors, queries),
    (f"whitened to {whitening.dimension}", whitening(vectors), whitening(queries)),
):
    neighbours = KNeighborsClassifier(5, metric="cosine").fit(known, train_labels)
    print(f"{name}: accuracy {neighbours.score(asked, test_labels):.1%}")

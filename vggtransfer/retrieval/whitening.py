"""Whitening of embeddings: a linear map, learnt once, after which no direction outweighs the others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from vggtransfer.cache import write_atomically
from vggtransfer.errors import DataError, OptionError

WhiteningKind = Literal["pca", "learned"]

_FORMAT = "1"


@dataclass(frozen=True)
class Whitening:
    """The map x -> P (x - m) / |P (x - m)|.

    Attributes:
        kind: How it was learnt.
        mean: m, float32 [features].
        projection: P, float32 [dimension, features].
    """

    kind: WhiteningKind
    mean: NDArray[np.float32]
    projection: NDArray[np.float32]

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turns embeddings [n, features] into unit vectors [n, dimension]."""
        return unit_rows(cast("NDArray[np.float32]", (vectors - self.mean) @ self.projection.T))

    @property
    def dimension(self) -> int:
        """Length of the vectors it gives."""
        return len(self.projection)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all its numbers."""
        numbers = (np.ascontiguousarray(array, dtype="<f4") for array in (self.mean, self.projection))
        return hashlib.sha256(b"".join(f"{array.shape}".encode() + array.tobytes() for array in numbers)).hexdigest()

    def save(self, path: Path) -> None:
        """Writes it as safetensors, atomically."""
        from safetensors.numpy import save_file

        arrays = {"mean": np.ascontiguousarray(self.mean), "projection": np.ascontiguousarray(self.projection)}
        entry = json.dumps({"format": _FORMAT, "kind": self.kind})
        with write_atomically(path) as temporary:
            save_file(arrays, temporary, metadata={"vggtransfer_whitening": entry})


def load_whitening(path: Path) -> Whitening:
    """Reads what `Whitening.save` wrote.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; learn it again") from error
    return whitening_in(content, path)


def whitening_in(content: bytes, path: Path) -> Whitening:
    """Reads the content of what `Whitening.save` wrote; `path` is for the message.

    Raises:
        DataError: It is something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)  # which checks the header that is read again below
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        entry = json.loads(header["__metadata__"]["vggtransfer_whitening"])
        mean, projection = arrays["mean"], arrays["projection"]
        if entry["format"] != _FORMAT or mean.shape != projection.shape[1:]:
            raise ValueError("of another version")
        return Whitening(entry["kind"], mean, projection)
    except (SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is no whitening of this package ({reason}); learn it again") from error


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales each row to length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32, copy=False)
    return scaled


def pca_whitening(vectors: NDArray[np.float32], *, dimension: int | None = None, shrink: float = 10.0) -> Whitening:
    """Learns PCA whitening (Jegou & Chum 2012, "Negative evidences and co-occurences in image retrieval").

    Args:
        vectors: Embeddings of pictures, float32 [n, features].
        dimension: Directions to keep, those of the largest variance; None: all that the vectors have.
        shrink: 0 is the paper's: every direction gets variance 1. This many times the mean variance is added to each
            before, so that directions with little variance, which are mostly noise, are not blown up. The default
            measured best by label on flowers12, where 0 is worse than no whitening; a large one only turns.

    Raises:
        OptionError: There are not enough vectors for the dimension, or the shrinkage is negative.
    """
    _check_shrink(shrink)
    exact = vectors.astype(np.float64)
    mean = exact.mean(axis=0)
    variances, directions = _principal_directions(exact - mean)
    kept = _kept(dimension, variances, len(vectors))
    variances = variances + shrink * variances.mean()
    projection = directions[:, :kept] / np.sqrt(variances[:kept])
    return Whitening("pca", mean.astype(np.float32), np.ascontiguousarray(projection.T, dtype=np.float32))


def learned_whitening(
    vectors: NDArray[np.float32], pairs: NDArray[np.intp], *, dimension: int | None = None, shrink: float = 0.3
) -> Whitening:
    """Learns discriminative whitening from pairs that match (Mikolajczyk & Matas 2007; Radenovic et al. 2018, 3.4).

    The covariance C_S of the differences within pairs is whitened first, by the inverse of its Cholesky factor; then
    those directions are kept in which all pictures differ most.

    Args:
        vectors: Embeddings, float32 [n, features].
        pairs: Rows of `vectors` that show the same, [m, 2]; `pairs_of_labels` makes them of labels.
        dimension: Directions to keep; None: all that the vectors have.
        shrink: 0 is the paper's, for many more pairs than features. This many times the mean variance of the
            differences is added to each direction. The default measured best on flowers12 with 60 to 360 pictures.

    Raises:
        OptionError: There are not enough vectors for the dimension, no pair, or too little shrinkage for so few.
    """
    _check_shrink(shrink)
    if len(pairs) == 0:
        raise OptionError("learned whitening needs pairs of pictures that show the same; there is none")
    exact = vectors.astype(np.float64)
    mean = exact.mean(axis=0)
    differences = exact[pairs[:, 0]] - exact[pairs[:, 1]]
    within = differences.T @ differences / len(differences)
    within += shrink * np.trace(within) / len(within) * np.eye(len(within))
    try:
        whitened = np.linalg.inv(np.linalg.cholesky(within))
    except np.linalg.LinAlgError:
        raise OptionError(f"shrink={shrink} is too little for {len(pairs)} pairs; use 0.1 or more") from None
    variances, directions = _principal_directions((exact - mean) @ whitened.T)
    kept = _kept(dimension, variances, len(vectors))
    projection = directions[:, :kept].T @ whitened
    return Whitening("learned", mean.astype(np.float32), np.ascontiguousarray(projection, dtype=np.float32))


def pairs_of_labels(labels: NDArray[np.generic], *, per_picture: int = 4, seed: int = 0) -> NDArray[np.intp]:
    """Draws rows [m, 2] with the same label, for each row up to `per_picture` others."""
    generator = np.random.default_rng(seed)
    pairs = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # Each with those that follow it in a random circle, not as far as its other side: no pair comes twice.
        circle = generator.permutation(members)
        steps = range(1, min(per_picture, (len(circle) - 1) // 2) + 1)
        pairs += [np.stack([circle, np.roll(circle, -step)], axis=1) for step in steps]
        if len(circle) == 2:
            pairs.append(circle[None])
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.intp)


def _check_shrink(shrink: float) -> None:
    if not 0 <= shrink <= 1e6:
        raise OptionError(f"shrink={shrink} is not possible: it must be from 0 to 1,000,000")


def _principal_directions(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances [features] in falling order, and the directions as columns."""
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    return variances[::-1].clip(min=0), directions[:, ::-1]


def _kept(dimension: int | None, variances: NDArray[np.float64], count: int) -> int:
    rank = min(int((variances > 1e-9 * variances[0]).sum()), count - 1)
    if dimension is None and rank > 0:
        return rank
    if dimension is None or not 1 <= dimension <= rank:
        raise OptionError(
            f"a whitening to {dimension} dimensions cannot be learnt from {count} vectors of {len(variances)} numbers: "
            f"they vary in {rank} directions; use fewer dimensions or more pictures"
        )
    return dimension

"""Pretrained weights by name or by file, ready for `VGGEncoder`: right names, right order, known preprocessing.

Named sources are downloaded once, verified, reduced to the trunk and kept in the cache folder (`VGGTRANSFER_CACHE`);
from then on no network is needed. Files are read wherever they are and never changed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from vggtransfer.encoder.architectures import architecture
from vggtransfer.encoder.download import download
from vggtransfer.encoder.weight_files import LoadedWeights, WithClassifier, find_file, read_weights, save_weights
from vggtransfer.encoder.weight_sources import SOURCE_NAMES, WeightSource, classifier_path, find_source
from vggtransfer.errors import WeightsError, did_you_mean

__all__ = ["LoadedWeights", "fetch", "load_weights"]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras")


def load_weights(
    arch: str, weights: str | Path, *, classifier: WithClassifier = False, in_channels: int = 3, depth: int = 5
) -> LoadedWeights:
    """Loads the weights of an architecture.

    Args:
        arch: One of `ARCHITECTURE_NAMES`.
        weights: `"default"`, `"torchvision"`, `"timm"`, `"embedded"`, a weights file (safetensors, PyTorch or Keras)
            or a run directory.
        classifier: Also load the fully connected layers fc6 to fc8; `"if present"` does without where there are none.
        in_channels: Channels that conv1_1 may have besides 3: files of our own for other pictures than RGB.
        depth: Blocks that a file must hold at least.

    Raises:
        OptionError: Unknown architecture.
        WeightsError: The weights cannot be found, fetched, verified, read or do not fit; says what to do.
    """
    architecture(arch)
    path = _file_or_name(weights)
    if path is None:
        return fetch(find_source(arch, str(weights)), classifier=classifier)
    loaded = read_weights(path, arch, classifier=classifier, depth=depth)
    channels = loaded.trunk["conv1_1.weight"].shape[1]
    if channels not in (3, in_channels):
        raise WeightsError(f"{path} is for pictures of {channels} channels, but {in_channels} are needed")
    return loaded


def fetch(source: WeightSource, *, classifier: WithClassifier = False) -> LoadedWeights:
    """Loads a named source from the cache, downloading it first if it is missing or damaged.

    Processes that start together download once: the others wait for the first.

    Raises:
        WeightsError: It cannot be downloaded, verified or kept.
    """
    path = source.path
    if source.name == "embedded":
        return read_weights(path, source.architecture, classifier=classifier)
    if (cached := _read_cached(path, source, classifier)) is not None:
        return cached

    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        with lock:
            if (cached := _read_cached(path, source, classifier)) is not None:
                return cached
            _download_and_convert(source, path, classifier)
            loaded = _read_cached(path, source, classifier)
    except OSError as error:
        raise WeightsError(
            f"cannot write to the cache folder {path.parent}: {error}; set VGGTRANSFER_CACHE to another folder"
        ) from error
    if loaded is None:
        raise WeightsError(f"{path} was damaged while it was written; check the disk or set VGGTRANSFER_CACHE")
    return loaded


def _download_and_convert(source: WeightSource, path: Path, classifier: WithClassifier) -> None:
    # Only one process is here at a time, so these were left by one that was killed.
    for leftover in path.parent.glob(f".{path.stem}[.-]*"):
        leftover.unlink(missing_ok=True)
    complete = path.with_name(f"{path.stem}-complete{Path(source.file_name).suffix}")
    try:
        download(source.url, complete, sha256=source.sha256)
        _convert(source, complete, path, classifier)
    finally:
        complete.unlink(missing_ok=True)


def _convert(source: WeightSource, complete: Path, path: Path, classifier: WithClassifier) -> None:
    loaded = read_weights(complete, source.architecture, classifier=classifier, preprocessing="torchvision")
    save_weights(path, replace(loaded, origin=source.origin))


def _read_cached(path: Path, source: WeightSource, classifier: WithClassifier) -> LoadedWeights | None:
    """The cached weights; None if they are not there or, with a warning, if they are damaged."""
    if not path.exists() or (classifier and not classifier_path(path).exists()):
        return None
    try:
        return read_weights(path, source.architecture, classifier=classifier)
    except WeightsError as error:
        print(f"warning: {error}; fetching it again", file=sys.stderr)
        return None


def _file_or_name(weights: str | Path) -> Path | None:
    """The weights file that is meant; None for the name of a source."""
    if isinstance(weights, Path):
        return find_file(weights)
    if weights in (*SOURCE_NAMES, "default"):
        return None
    path = Path(weights)
    if path.expanduser().exists() or len(path.parts) > 1 or path.suffix.lower() in _SUFFIXES:
        return find_file(path)
    if weights.lower() == "none":
        raise WeightsError("weights='none' is not a source; use weights=None for random weights")
    known = ", ".join(("default", *SOURCE_NAMES))
    raise WeightsError(
        f"unknown weights '{weights}'{did_you_mean(weights, SOURCE_NAMES)}; known: {known}, or the path of a file"
    )

"""The same picture twice: in training and validation, or under two labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vggtransfer.data.folders import Sample

_SHOWN = 3


def find_duplicates(
    splits: Mapping[str, Sequence[Sample]], hashes: Mapping[Path, str], classes: Sequence[str]
) -> tuple[str, ...]:
    """Tells in plain sentences which pictures (byte by byte) are in two splits, or under two labels.

    Args:
        splits: Samples by the name of their split.
        hashes: Content hashes by path; samples without one are left out.
        classes: Names of the labels.
    """
    places: dict[str, list[tuple[str, Sample]]] = {}
    for split, samples in splits.items():
        for sample in samples:
            if sample.path in hashes:
                places.setdefault(hashes[sample.path], []).append((split, sample))
    repeated = [same for same in places.values() if len(same) > 1]
    sentences = []
    for first, second in itertools.combinations(splits, 2):
        firsts = [
            [next((sample.path for name, sample in same if name == split), None) for split in (first, second)]
            for same in repeated
        ]
        shared = [f"{one} = {other}" for one, other in firsts if one and other]
        if shared:
            sentences.append(f"{_pictures(shared)} in both {first} and {second}: {_first(shared)}.")
    contradictions = [
        " = ".join(f"{by_label[label].path} ({classes[label]})" for label in sorted(by_label))
        for same in repeated
        if len(by_label := {sample.label: sample for _, sample in reversed(same)}) > 1
    ]
    if contradictions:
        sentences.append(f"{_pictures(contradictions)} under more than one label: {_first(contradictions)}.")
    return tuple(sentences)


def _pictures(things: Sequence[object]) -> str:
    return f"{len(things)} picture{'s' if len(things) > 1 else ''}"


def _first(texts: Iterable[str]) -> str:
    texts = list(texts)
    return "; ".join(texts[:_SHOWN]) + (f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")

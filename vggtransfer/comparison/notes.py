"""What readers of a comparison's table must know, in sentences that stand below it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vggtransfer.comparison.results import NetworkResult
from vggtransfer.comparison.setting import Setting
from vggtransfer.encoder.architectures import ARCHITECTURE_NAMES, architecture

_SMALL_PICTURES = 64
_SHRINKING = ("googlenet", "resnet18", "densenet121")


def comparison_notes(results: Sequence[NetworkResult], setting: Setting) -> list[str]:
    """Returns the sentences: what went wrong, what is not as asked for, how each network was trained, what to mistrust.

    Args:
        results: The networks.
        setting: What they have in common.
    """
    return [
        *setting.notes,
        *_failures(results, setting.classes),
        *_sizes(results, setting),
        *_ways(results),
        *_networks([result.arch for result in results], setting),
        *_memory(results),
    ]


def _failures(results: Sequence[NetworkResult], classes: int) -> list[str]:
    notes = []
    for result in results:
        if result.diverged:
            notes.append(f"{result.arch} diverged in {result.diverged}: loss or gradient were no longer finite.")
        elif result.learnt_nothing(classes):
            notes.append(
                f"{result.arch} learnt nothing: its training loss, {result.last('train_loss'):.4f}, is that of equal "
                f"scores for {classes} classes, ln {classes} = {math.log(classes):.4f}."
            )
    return notes


def _sizes(results: Sequence[NetworkResult], setting: Setting) -> list[str]:
    notes = []
    if own := [f"{result.arch} {result.image_size}" for result in results if result.image_size != setting.image_size]:
        notes.append(
            f"Pictures are scaled to the side of a network that does not take {setting.image_size}: {_list(own)}."
        )
    if setting.train_sizes is not None:
        asked = _schedule(setting.train_sizes)
        sizes = [(result.arch, _schedule(result.train_sizes)) for result in results]
        if own := [f"{arch} {schedule}" for arch, schedule in sizes if schedule != asked]:
            notes.append(
                f"Training pictures are not {asked} where a network does not take all of these sides: {_list(own)}."
            )
    return notes


def _ways(results: Sequence[NetworkResult]) -> list[str]:
    ways: dict[str, list[str]] = {}
    for result in results:
        clip = "no clipping" if result.gradient_clip is None else f"gradients clipped to {result.gradient_clip:g}"
        way = f"peak rate {result.learning_rate:g}, warm-up {result.warmup_epochs:g} epochs, {clip}"
        ways.setdefault(way, []).append(result.arch)
    return [f"{_list(archs)}: {way}." for way, archs in ways.items()]


def _networks(names: Sequence[str], setting: Setting) -> list[str]:
    notes = []
    published = [name for name in names if name in ARCHITECTURE_NAMES and architecture(name).classifier_widths]
    if published and setting.head != "vgg":
        notes.append(
            f"{_list(published)}: head {setting.head} in the place of fc6 to fc8, so the parameters are not those of "
            "the published network, which are in the last table of comparison.md."
        )
    if setting.image_size <= _SMALL_PICTURES and (shrinking := [name for name in names if name in _SHRINKING]):
        notes.append(
            f"{_list(shrinking)}: torchvision's, made for 224 pixels; the first layers shrink pictures of "
            f"{setting.image_size} to {setting.image_size // 4}, which costs accuracy. Variants for CIFAR do not."
        )
    if "googlenet" in names:
        notes.append("googlenet: without auxiliary heads.")
    return notes


def _memory(results: Sequence[NetworkResult]) -> list[str]:
    notes = []
    if any(result.memory_mib and result.memory_heading.startswith("process") for result in results):
        notes.append("Process memory includes Python, its libraries and the list of pictures.")
    if resumed := [result.arch for result in results if result.resumed]:
        notes.append(f"{_list(resumed)}: stopped and resumed on the way, so the peak of memory is not known.")
    return notes


def _schedule(stages: Sequence[tuple[int, int]]) -> str:
    """The sides as `--train-size` takes them, without changes to the same side: `"32 48@2"`."""
    words: list[str] = []
    before = None
    for start, side in stages:
        if side != before:
            words.append(f"{side}@{start}" if start else f"{side}")
        before = side
    return " ".join(words)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)

"""What the report of any run tells of it: starts and machine, recipe, unreadable pictures, what was frozen."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from vggtransfer.data.scan import BadPicture
from vggtransfer.encoder.freezing import freeze_report
from vggtransfer.encoder.vgg import VGGEncoder

_MOST_BAD_PICTURES = 30


def environment_content(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns how a run was started and resumed, and what it last ran on; `starts` is what environment.json holds."""
    last = starts[-1]
    return {
        "starts": [
            (
                readable(start["started"]),
                start["gpu"] or start["device"],
                start["processes"],
                _command_line(start["command"], processes=start["processes"]),
            )
            for start in starts
        ],
        "environment_rows": [
            ("Python", last["python"]),
            ("platform", last["platform"]),
            ("device", last["gpu"] or last["device"]),
            ("processes x threads", f"{last['processes']} x {last['threads']}"),
            *last["packages"].items(),
        ],
    }


def readable(moment: str) -> str:
    """Returns a moment in ISO format as `2026-01-31 12:00 UTC`."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _command_line(words: Sequence[str], *, processes: int) -> str:
    """What was typed, without the folders that lead to the program; `torchrun` starts each of several processes."""
    program, *arguments = words or [""]
    name = Path(program).name
    of_the_package = ["-m", "vggtransfer"]
    if processes > 1:
        started = of_the_package if name in ("__main__.py", "vggtransfer") else [name]
        return shlex.join(["torchrun", "--nproc-per-node", str(processes), *started, *arguments])
    return shlex.join([*(["python", *of_the_package] if name == "__main__.py" else [name or "python"]), *arguments])


def bad_pictures_content(bad: Sequence[BadPicture], root: Path) -> dict[str, Any]:
    """Returns the pictures that cannot be read, or the first of them."""
    return {
        "bad_count": len(bad),
        "bad_rows": [
            (picture.path.relative_to(root) if picture.path.is_relative_to(root) else picture.path, picture.reason)
            for picture in bad[:_MOST_BAD_PICTURES]
        ],
    }


def freezing_table(
    encoder: VGGEncoder, head: nn.Module, *, stages: Sequence[tuple[int, str]], epochs: int, name: str = "head"
) -> tuple[list[str], list[tuple[str | int, ...]]]:
    """Returns headings and rows: one row a block and one for the head, one column for each stage of unfreezing.

    Args:
        encoder: Left with the policy it has.
        head: What is on top of it; all of it trains.
        stages: (first epoch, from 0; policy) of those that were reached.
        epochs: That the run took.
        name: What the head is called.
    """
    policy = encoder.unfreeze_policy
    reports = [freeze_report(encoder.unfreeze(value)) for _, value in stages]
    encoder.unfreeze(policy)
    stops = [*(start for start, _ in stages[1:]), epochs]
    headings = ["part", "parameters"]
    for (start, value), stop in zip(stages, stops, strict=True):
        span = f"epoch {stop}" if stop <= start + 1 else f"epochs {start + 1} to {stop}"
        headings.append(f"trained in {span} ({value})")
    rows: list[tuple[str | int, ...]] = []
    for blocks in zip(*reports, strict=True):
        trained = [f"{block.trainable:,}" if block.trainable else "frozen" for block in blocks]
        block = blocks[-1]
        rows.append((block.block, f"{block.parameters:,}", *trained, block.batch_norm, _size(block.bytes)))
    parameters = list(head.parameters())
    count, size = sum(one.numel() for one in parameters), sum(one.numel() * one.element_size() for one in parameters)
    rows.append((name, f"{count:,}", *[f"{count:,}"] * len(stages), "-", _size(size)))
    return [*headings, "BatchNorm at the end", "size"], rows


def recipe_rows(command: Callable[..., object], recipe: Mapping[str, object]) -> list[tuple[str, object, object, bool]]:
    """Each option as (name, value, default, whether they differ), as they are typed on the command line."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    return [
        (f"--{name.replace('_', '-')}", _typed(value), _typed(defaults.get(name)), value != defaults.get(name))
        for name, value in recipe.items()
        if name not in ("out", "resume")
    ]


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _typed(value: object) -> object:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else value

"""What changes while training goes on: freezing and picture size by epoch, the learning rate by step."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

from vggtransfer.errors import OptionError


@dataclass(frozen=True)
class Stage:
    """From epoch `start` (counted from 0) on, `value` holds."""

    start: int
    value: str


def parse_unfreeze_schedule(text: str) -> tuple[Stage, ...]:
    """Reads `"POLICY [POLICY@EPOCH ...]"`, for example `"none block5@2 block4-block5@6"`.

    That example trains the head alone for 2 epochs, block5 with it for 4 more, then both blocks: gradual unfreezing
    (Howard & Ruder 2018, section 3.3). A single policy is a schedule of one stage. The policies themselves are
    checked by the encoder.

    Raises:
        OptionError: A part that cannot be read, or epochs that do not rise.
    """
    if not text.strip():
        raise OptionError("unfreeze='' is empty; use 'none' to train the head alone")
    return parse_stages("unfreeze", text, kind="POLICY", example="none block5@2 block4-block5@6")


def parse_stages(option: str, text: str, *, kind: str, example: str) -> tuple[Stage, ...]:
    """Reads `"VALUE [VALUE@EPOCH ...]"`: stages that begin at epoch 0 and rise.

    Args:
        option: Name of the option, for messages.
        text: What the option says.
        kind: What a value is, for messages.
        example: A right schedule, for messages.

    Raises:
        OptionError: A part that cannot be read, or epochs that do not rise.
    """
    stages: list[Stage] = []
    for part in re.sub(r"\s*,\s*", ",", text).split():
        value, at, epoch = part.partition("@")
        if not value or (at and not epoch.isdecimal()):
            raise OptionError(f"{option}='{text}': '{part}' is not {kind}@EPOCH, as in '{example}'")
        stages.append(Stage(int(epoch or 0), value))
    starts = [stage.start for stage in stages]
    rising = all(earlier < later for earlier, later in itertools.pairwise(starts))
    if not stages or starts[0] != 0 or not rising:
        raise OptionError(f"{option}='{text}': stages must begin at epoch 0 and rise, as in '{example}'")
    return tuple(stages)


def stage_at(stages: tuple[Stage, ...], epoch: int) -> Stage:
    """The stage in force during `epoch`."""
    return max((stage for stage in stages if stage.start <= epoch), key=lambda stage: stage.start)


def learning_rate_factor(step: int, *, total: int, warmup: int) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine down to 0 (Loshchilov & Hutter 2017, equation 5).

    Args:
        step: Optimizer steps done before this one, 0 to total - 1.
        total: Optimizer steps of the whole run.
        warmup: Steps of warm-up; the first step already moves, by 1 / warmup of the full rate.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

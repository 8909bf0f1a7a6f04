"""One line of what `vggtransfer doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "hint", "broken"]


@dataclass(frozen=True)
class Finding:
    """Something looked at.

    Attributes:
        subject: What was looked at, such as `torch`.
        state: `ok`; `hint` for what works but could be better or is missing on purpose; `broken` for what will fail.
        found: What is there, in one line.
        remedy: What to type or do; empty where nothing needs to be done.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""

"""Ctrl-C and SIGTERM end a run after the step in progress, with its state saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingInterrupted(KeyboardInterrupt):
    """Training stopped on request; its message names the saved state and how to go on.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM, as shells report these signals.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Remembers the signal that asked training to stop, if any."""

    signal_number: int | None = None
    time: float = 0.0

    def is_made(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns SIGINT and SIGTERM inside the block into a request.

    A second Ctrl-C, from an impatient person, interrupts at once. Further SIGTERMs do not: torchrun and batch systems
    send several, and the state is just being saved. Outside the main thread, where Python
    delivers no signals, nothing is changed.
    """
    request = StopRequest()

    def remember(number: int, frame: FrameType | None) -> None:
        # One Ctrl-C can arrive twice: from the terminal and from torchrun.
        if number == signal.SIGINT and request.signal_number is not None and time.monotonic() - request.time > 1:
            signal.default_int_handler(number, frame)
        if request.signal_number is None:
            request.signal_number, request.time = number, time.monotonic()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

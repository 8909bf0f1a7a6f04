"""Ctrl-C and SIGTERM end a run after the step in progress, with its state saved."""

from __future__ import annotations

import signal
import threading
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


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM inside the block into a request; a second one interrupts at once.

    Outside the main thread, where Python delivers no signals, nothing is changed.
    """
    request = StopRequest()

    def remember(number: int, frame: FrameType | None) -> None:
        if request.signal_number is not None:
            signal.default_int_handler(number, frame)
        request.signal_number = number

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

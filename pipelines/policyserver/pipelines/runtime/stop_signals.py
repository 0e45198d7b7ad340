"""Waiting for SIGINT, SIGTERM, SIGHUP or another reason to stop."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedEarlyError(Exception):
    """A reason to stop came before the run had begun."""


class StopSignals:
    """A queue of reasons to stop. `put` may be called from any thread and from signal handlers, which is why it is a SimpleQueue."""

    def __init__(self) -> None:
        """Start without a reason."""
        self._reasons: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def put(self, reason: str | Exception) -> None:
        """Say why to stop; `wait` raises an exception that was put in."""
        self._reasons.put(reason)

    def wait(self, timeout_s: float | None = None) -> str:
        """Return the first reason to stop: the name of a signal, or what was put in.

        Raises:
            TimeoutError: There was none within `timeout_s`.
            Exception: What was put in, if it is one.
        """
        try:
            reason = self._reasons.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(reason, Exception):
            raise reason
        return reason

    @contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Take SIGINT, SIGTERM and SIGHUP (the terminal is gone) as reasons, until the block is left. Main thread only."""

        def note(number: int, frame: FrameType | None) -> None:
            self.put(signal.Signals(number).name)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

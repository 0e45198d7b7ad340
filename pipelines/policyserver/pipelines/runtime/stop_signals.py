"""Waiting for SIGINT, SIGTERM, SIGHUP, or something else to say that it is over."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedEarlyError(Exception):
    """Somebody wanted it to stop before it had really begun."""


class StopSignals:
    """A queue of reasons to stop. `put` may be called from any thread and from signal handlers, which is why it is a SimpleQueue."""

    def __init__(self) -> None:
        """Start without a reason."""
        self._reasons: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def put(self, reason: str | Exception) -> None:
        """Say that it is over, and why; an exception is raised again where it is waited for."""
        self._reasons.put(reason)

    def wait(self) -> str:
        """Return the first reason to stop, when there is one: the name of a signal, or what was put in.

        Raises:
            Exception: What was put in, if it is one.
        """
        return self._raised(self._reasons.get())

    def come_within(self, timeout_s: float) -> str | None:
        """Return the first reason to stop, as `wait` does, or None when there is none in time."""
        try:
            reason = self._reasons.get(timeout=timeout_s)
        except queue.Empty:
            return None
        return self._raised(reason)

    @staticmethod
    def _raised(reason: str | Exception) -> str:
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

"""What sinks with a thread of their own have in common: the counters, waiting for them, and how the thread ends."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import ClassVar

from policyserver.monitoring.sink import SinkStatistics
from policyserver.monitoring.trouble import Trouble


class BackgroundSink(ABC):
    """A sink whose thread stores what `write` took. `_changed` guards its state and is notified of changes."""

    _FAILED: ClassVar[str]
    """What the log says of an error that ends the thread."""
    _under_way_s: float = 5.0
    """Longest time that what is under way when the time of `close` is up is waited for, seconds."""

    place: str
    """Name of where its points go: the same for all sinks, of any process, that write to the same place."""

    def _reset(self, logger: logging.Logger, subject: str, thread_name: str) -> None:
        """Set the counters to 0 and make the thread, but don't start it; log lines begin with `subject`."""
        self._changed = threading.Condition()
        self._accepted = self._stored = self._dropped = self._dead_lettered = 0
        self._last_error = ""
        self._flush_upto = 0
        self._ended = False
        self._closing_by: float | None = None
        self._logger, self._subject = logger, subject
        self._absence, self._overflow = Trouble(logger, subject), Trouble(logger, subject)
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken so far is stored; False if it was not within `timeout_s`."""
        with self._changed:
            upto = self._flush_upto = self._accepted
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended or self._done >= upto, timeout_s)
            return self._done >= upto

    def close(self, timeout_s: float) -> None:
        """Store what was taken, for at most `timeout_s`, and end the thread. Closing again does nothing.

        What is under way then may take some seconds more. A thread that still works after them, as in a file system that does not answer,
        is left behind, with an error in the log.
        """
        with self._changed:
            if self._closing_by is None:
                self._closing_by = time.monotonic() + timeout_s
            left_s = max(0.0, self._closing_by - time.monotonic()) + self._under_way_s
            self._changed.notify_all()
        if self._thread.ident is not None:  # else a fork left it without one
            self._thread.join(left_s)
            if self._thread.is_alive():
                self._logger.error("%s: what was under way did not end in time and is left behind; its points may be lost", self._subject)

    def statistics(self) -> SinkStatistics:
        """Read the counters."""
        with self._changed:
            backlog = self._accepted - self._done
            return SinkStatistics(self._accepted, self._stored, backlog, self._dropped, self._dead_lettered, self._last_error)

    @property
    def _is_late(self) -> bool:
        """Whether the sink closes and the time for that is up."""
        return self._closing_by is not None and time.monotonic() >= self._closing_by

    @property
    def _done(self) -> int:
        """Points that need nothing more. Read it under the lock."""
        return self._stored + self._dead_lettered

    def _accept(self, count: int, *, is_half_empty: bool) -> None:
        """Count points that are queued. An overflow is over once half of the queue is empty."""
        if self._overflow.lasts and is_half_empty:  # not with every bit of room
            self._overflow.is_over(f"points are taken again, {self._dropped:,} were dropped since the start")
        self._accepted += count

    def _drop(self, count: int, why: str) -> None:
        """Count points that the overflow policy refuses, and log the first of a series."""
        self._last_error = f"points dropped: {why}"
        self._overflow.occurred(why, self._last_error)
        self._dropped += count

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # no failure may leave writers and flushers waiting for a thread that is gone
            self._logger.exception("%s: %s", self._subject, self._FAILED)
            with self._changed:
                self._last_error = f"{self._FAILED}: {error}"
        finally:
            with self._changed:
                self._closing_by = self._closing_by or time.monotonic()
            try:
                self._give_back()
            except Exception:
                self._logger.exception("%s: not everything could be closed", self._subject)
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    @abstractmethod
    def _work(self) -> None:
        """Store points until the sink is closed and nothing is left, or time is up.

        What it raises ends the thread, so troubles that may pass, an OSError among them, are dealt with inside.
        """

    @abstractmethod
    def _give_back(self) -> None:
        """Close what the thread used."""

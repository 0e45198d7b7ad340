"""Where points go: the interface of a sink, and the sink that is made of others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from policyserver.monitoring.points import Points


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """Counters of a sink, in points: accepted = stored + backlog + dead_lettered. Dropped points were never accepted."""

    accepted: int = 0
    """Points that `write` took."""
    stored: int = 0
    """Points that reached the database."""
    backlog: int = 0
    """Points that are accepted and not stored yet."""
    dropped: int = 0
    """Points that the overflow policy refused, because too many were waiting."""
    dead_lettered: int = 0
    """Points that the database can never take, and that were put aside."""
    last_error: str = ""
    """Newest trouble; "" if there was no trouble."""


class Sink(Protocol):
    """Takes points at any rate, from any thread, in whatever state the database is."""

    def write(self, points: Points) -> None:
        """Take a batch; never waits for the database, never raises because of it."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken so far is stored; False if it was not within `timeout_s`."""

    def close(self, timeout_s: float) -> None:
        """Store what was taken, for at most `timeout_s`, and release everything. Closing again does nothing."""

    def statistics(self) -> SinkStatistics:
        """Read the counters."""


class MultiSink:
    """Writes to several sinks, or with no sinks to nowhere. Its counters are those of the first; ask the others for theirs."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        """Write to each of these."""
        self.sinks = tuple(sinks)

    def write(self, points: Points) -> None:
        """Hand the batch to each sink."""
        for sink in self.sinks:
            sink.write(points)

    def flush(self, timeout_s: float) -> bool:
        """Flush each sink, all within `timeout_s` together."""
        deadline = time.monotonic() + timeout_s
        flushed = [sink.flush(max(0.0, deadline - time.monotonic())) for sink in self.sinks]
        return all(flushed)

    def close(self, timeout_s: float) -> None:
        """Close each sink, all within `timeout_s` together."""
        deadline = time.monotonic() + timeout_s
        for sink in self.sinks:
            sink.close(max(0.0, deadline - time.monotonic()))

    def statistics(self) -> SinkStatistics:
        """Read the counters of the first sink; zeros without a sink."""
        return self.sinks[0].statistics() if self.sinks else SinkStatistics()

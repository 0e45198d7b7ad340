"""What an evaluation collects of the episodes that are played for it."""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable
from typing import Any

from policyserver.server.processes.serving_report import ServingReport


class Evaluation:
    """Collects the returns of the first episodes that start.

    Which episodes count is decided when they start: the first `wanted` of all clients, in the order in which they start; no further one is
    begun. If the first ones to end counted, short episodes would come before long ones that began earlier, and the mean would be biased
    towards them. An episode whose client is gone has no whole return: it is counted as lost, also if it has no step and so leaves no trace,
    and not replaced.
    """

    def __init__(self, wanted: int) -> None:
        """Wait for so many episodes."""
        self.wanted = wanted
        self.on_end: Callable[[], None] = lambda: None
        """Called when the last of them has ended. On the thread that brings the reports."""
        self._lock = threading.Lock()
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._lost = self._open = 0

    def take(self, report: ServingReport) -> None:
        """Take what a serving process reports."""
        columns = report.episodes
        with self._lock:
            for ended, returned, length in zip(*(columns.get(name, ()) for name in ("ended", "return", "length")), strict=True):
                if ended != "lost":
                    self._returns.append(returned)
                    self._lengths.append(length)
            started, self._open = report.counters["episodes_started"], report.counters["episodes_open"]
            self._lost = started - self._open - len(self._returns)
            has_ended = started >= self.wanted and not self._open
        if has_ended:
            self.on_end()

    def result(self) -> dict[str, Any]:
        """Return what there is: the mean return with its standard error, null where there are too few episodes."""
        with self._lock:
            returns, count = self._returns, len(self._returns)
            return {
                "wanted": self.wanted,
                "episodes": count,
                "lost": self._lost,
                "unfinished": self._open,
                "return_mean": statistics.fmean(returns) if returns else None,
                "return_error": statistics.stdev(returns) / math.sqrt(count) if count > 1 else None,
                "return_min": min(returns, default=None),
                "return_max": max(returns, default=None),
                "length_mean": statistics.fmean(self._lengths) if returns else None,
            }

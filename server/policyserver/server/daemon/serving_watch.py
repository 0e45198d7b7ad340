"""Records how serving goes and which episodes ended, once a second, so that the page shows it whatever the clients are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyserver.monitoring.reports import serving_point
from policyserver.monitoring.sink import MultiSink, Sink
from policyserver.monitoring.trouble import Trouble
from policyserver.server.daemon.served_episodes import ServedEpisodes
from policyserver.server.processes.serving_report import ServingReport

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""Seconds from one point to the next."""
_JOIN_TIMEOUT_S = 5.0

OnReport = Callable[[ServingReport], None]
Ask = Callable[[float, OnReport], Sequence[ServingReport]]
"""Returns the report of each serving process that answers within so many seconds; calls a function with those that come too late."""


class ServingWatch:
    """Asks the serving processes for their reports on a thread of its own, until it is closed."""

    def __init__(self, ask: Ask, sink: Sink, tags: Mapping[str, str], on_report: OnReport = lambda report: None) -> None:
        """Begin.

        Args:
            ask: Called by the thread alone.
            sink: Gets a point of each serving process.
            tags: Of the run and its policy.
            on_report: Called with each report.
        """
        self._ask = ask
        self._on_report = on_report
        self._sink = sink
        self._tags = dict(tags)
        self._episodes = [ServedEpisodes(each, tags) for each in (sink.sinks if isinstance(sink, MultiSink) else (sink,))]
        self._trouble = Trouble(logger, "how serving goes")
        self.newest: list[Mapping[str, Any]] = []
        """The counters that the serving processes answered last, one entry for each that did; from any thread."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serving-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask a last time and end the thread. A second call does nothing."""
        self._closing.set()
        self._thread.join(_JOIN_TIMEOUT_S)

    def _run(self) -> None:
        is_last, wait_s = False, 0.0  # at once, so that /readyz says so as soon as `ctl wait-ready` does
        while not is_last:
            is_last, wait_s = self._closing.wait(wait_s), INTERVAL_S
            try:
                reports = self._ask(INTERVAL_S, self._record_episodes)
                self.newest = [report.counters for report in reports]
                for report in reports:
                    self._on_report(report)
                    self._sink.write(serving_point(self._tags, report.counters))
                    self._record_episodes(report)
                self._trouble.is_over("written down again")
            except Exception as error:  # no reason to stop learning, nor to stop asking
                self._trouble.occurred(type(error).__name__, f"not written down, asking on: {error!r}")
                logger.debug("how serving goes could not be written down", exc_info=True)

    def _record_episodes(self, report: ServingReport) -> None:
        """Write the episodes of an answer; one that comes too late for its counters still brings them."""
        if report.episodes_missing:
            logger.warning("%d episodes are not written down: more ended at once than are kept", report.episodes_missing)
        for episodes in self._episodes:
            episodes.write(report)
            episodes.write_shadow(report)

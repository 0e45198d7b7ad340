"""Records how serving goes and which episodes ended, once a second, so that the page shows it whatever the clients are.

What judges the episodes may have the processes asked at once, too, as for each update of the learner.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
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
_REST = 1.0
"""Least time from one look at once to the next, in multiples of what it takes. Updates that are shorter share a look."""

OnReport = Callable[[ServingReport], None]
Ask = Callable[[float, OnReport], Sequence[ServingReport]]
"""Returns the report of each serving process that answers within so many seconds; calls a function with those that come too late."""


class ServingWatch:
    """Asks the serving processes for their reports on a thread of its own, until it is closed."""

    def __init__(
        self,
        ask: Ask,
        sink: Sink,
        tags: Mapping[str, str],
        on_report: OnReport = lambda report: None,
        after_round: Callable[[int], None] = lambda answered: None,
    ) -> None:
        """Begin.

        Args:
            ask: Called by the thread alone.
            sink: Gets a point of each serving process.
            tags: Of the run and its policy.
            on_report: Called with each report; what it raises is logged.
            after_round: Called once a second with the number of processes that have answered.
        """
        self._ask = ask
        self._on_report, self._after_round = on_report, after_round
        self._sink = sink
        self._tags = dict(tags)
        self._episodes = [ServedEpisodes(each, tags) for each in (sink.sinks if isinstance(sink, MultiSink) else (sink,))]
        self._trouble, self._unused = Trouble(logger, "how serving goes"), Trouble(logger, "reports of the serving processes")
        self.newest: list[Mapping[str, Any]] = []
        """The counters that the serving processes answered last, one entry for each that did; from any thread."""
        self._is_closing = False
        self._asked, self._looked = 1, 0  # the first look is asked for by the start
        """Looks that were asked for, and those that are done."""
        self._look_after_s = 0.0
        self._changed = threading.Condition()  # guards the four above
        self._thread = threading.Thread(target=self._run, name="serving-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask a last time and end the thread. A second call does nothing."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(_JOIN_TIMEOUT_S)

    def look(self) -> None:
        """Have the serving processes asked at once, unless that was done just now. Returns at once; from any thread."""
        with self._changed:
            if time.monotonic() >= self._look_after_s and self._asked == self._looked:
                self._asked += 1
                self._changed.notify_all()

    def wait_looked(self, timeout_s: float) -> bool:
        """Wait until the looks that were asked for are done, and what their reports led to; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._looked == self._asked or self._is_closing, timeout_s)

    def _run(self) -> None:
        is_last = False
        point_s = time.monotonic()  # at once, so that /readyz says so as soon as `ctl wait-ready` does
        while not is_last:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._asked != self._looked, point_s - time.monotonic())
                is_last, asked = self._is_closing, self._asked
            begun = time.monotonic()
            is_regular = is_last or begun >= point_s
            try:
                self._ask_all(is_regular=is_regular)
                self._trouble.is_over("written down again")
            except Exception as error:  # no reason to stop learning, nor to stop asking
                self._trouble.occurred(type(error).__name__, f"not written down, asking on: {error!r}")
                logger.debug("how serving goes could not be written down", exc_info=True)
            ended = time.monotonic()
            if is_regular:
                point_s = ended + INTERVAL_S
            with self._changed:
                self._looked, self._look_after_s = asked, ended + _REST * (ended - begun)
                self._changed.notify_all()

    def _ask_all(self, *, is_regular: bool) -> None:
        reports = self._ask(INTERVAL_S, self._record_episodes)
        self.newest = [report.counters for report in reports]
        users: list[Callable[[], None]] = [functools.partial(self._on_report, report) for report in reports]
        if is_regular:
            users.insert(0, functools.partial(self._after_round, len(reports)))
        self._call_all(users)  # first: an update may wait for what this leads to
        for report in reports:
            if is_regular:
                self._sink.write(serving_point(self._tags, report.counters))
            self._record_episodes(report)

    def _call_all(self, users: Sequence[Callable[[], None]]) -> None:
        """Have the reports used; what fails takes neither the other reports with it nor what is recorded."""
        failure: Exception | None = None
        for use in users:
            try:
                use()
            except Exception as error:
                logger.debug("a report could not be used", exc_info=True)
                failure = error
        if failure is None:
            self._unused.is_over("used again")
        else:
            self._unused.occurred(type(failure).__name__, f"not used, recording on: {failure!r}")

    def _record_episodes(self, report: ServingReport) -> None:
        """Write the episodes of an answer; one that comes too late for its counters still brings them."""
        if report.episodes_missing:
            logger.warning("%d episodes are not written down: more ended at once than are kept", report.episodes_missing)
        for episodes in self._episodes:
            episodes.write(report)
            episodes.write_shadow(report)

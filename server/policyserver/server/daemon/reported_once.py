"""Takes each episode that a serving process reports once, whatever is lost or late between the two: it is told until it is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import islice

from policyserver.server.processes.link import Link
from policyserver.server.processes.serving_report import ServingReport

_KEPT = 1000
"""Most serving processes that are remembered; a daemon has a handful, and some more that died."""


class ReportedOnce:
    """Asks over a link how serving goes. Owned by the thread that asks."""

    def __init__(self, link: Link) -> None:
        """Begin with processes that have reported nothing."""
        self._link = link
        self._known: dict[str, int] = {}
        """How many ended episodes are known of each process, by its boot id, from its first one on."""

    def ask(self, timeout_s: float, on_late: Callable[[ServingReport], None]) -> Sequence[ServingReport]:
        """Return the reports of those processes that answer in time; call `on_late` with answers to earlier questions, before that."""
        answers = self._link.ask(timeout_s, lambda late: on_late(self._news(late)), content=dict(self._known))
        return [self._news(answer) for answer in answers]

    def _news(self, report: ServingReport) -> ServingReport:
        """Return a report with the episodes that are new alone, and how many never came."""
        boot_id = report.counters["boot_id"]
        count = len(next(iter(report.episodes.values()), ()))
        known = self._known.pop(boot_id, 0)
        seen, missing = max(known - report.episodes_from, 0), max(report.episodes_from - known, 0)
        self._known[boot_id] = max(known, report.episodes_from + count)
        for oldest in list(islice(self._known, max(len(self._known) - _KEPT, 0))):
            del self._known[oldest]
        episodes = {name: column[seen:] for name, column in report.episodes.items()} if seen < count else {}
        return dataclasses.replace(report, episodes=episodes, episodes_missing=missing)

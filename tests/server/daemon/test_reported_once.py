"""Each ended episode is taken once, whatever answers are lost or late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policyserver.server.daemon.reported_once import ReportedOnce
from policyserver.server.processes.serving_report import ServingReport


class Process:
    """A serving process whose answers the test may lose or delay."""

    def __init__(self, boot_id: str = "a") -> None:
        self.boot_id, self.ended = boot_id, list[str]()
        self.dropped = 0
        """Oldest episodes of which it can tell no more."""
        self.is_lost = self.is_late = False
        self._late: list[ServingReport] = []

    def ask(self, _: float, on_late: Callable[[Any], None], *, content: dict[str, int]) -> list[ServingReport]:
        first = max(content.get(self.boot_id, 0), self.dropped)
        episodes = {"episode": self.ended[first:]} if self.ended[first:] else {}
        report = ServingReport({"boot_id": self.boot_id}, episodes, episodes_from=first)
        late, self._late = self._late, []
        for each in late:
            on_late(each)
        if self.is_late:
            self._late.append(report)
        return [] if self.is_lost or self.is_late else [report]


def asked(once: ReportedOnce) -> tuple[list[str], int]:
    """Ask, and return the episodes that are taken, late ones first, and how many are missing."""
    reports: list[ServingReport] = []
    reports += once.ask(1.0, reports.append)
    return [name for report in reports for name in report.episodes.get("episode", [])], sum(report.episodes_missing for report in reports)


def test_what_a_lost_answer_told_is_told_again() -> None:
    process = Process()
    link: Any = process
    once = ReportedOnce(link)
    process.ended += "ab"
    assert asked(once) == (["a", "b"], 0)
    process.ended += "c"
    process.is_lost = True
    assert asked(once) == ([], 0)
    process.ended += "d"
    process.is_lost = False
    assert asked(once) == (["c", "d"], 0)
    assert asked(once) == ([], 0)


def test_what_a_late_answer_tells_too_is_taken_once() -> None:
    process = Process()
    link: Any = process
    once = ReportedOnce(link)
    process.ended += "ab"
    process.is_late = True
    assert asked(once) == ([], 0)
    process.ended += "c"
    process.is_late = False
    # The process is asked before the late answer is there, so it tells of all.
    assert asked(once) == (["a", "b", "c"], 0)
    process.ended += "d"
    assert asked(once) == (["d"], 0)


def test_a_gap_is_counted_and_another_process_begins_anew() -> None:
    process = Process()
    link: Any = process
    once = ReportedOnce(link)
    process.ended += "abcde"
    process.dropped = 3
    assert asked(once) == (["d", "e"], 3)
    process.boot_id, process.ended, process.dropped = "its successor", ["f"], 0
    assert asked(once) == (["f"], 0)

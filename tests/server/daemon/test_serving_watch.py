"""The serving processes are asked from the first moment on, once a second, and at once where an update wants episodes judged."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import EPISODE
from policyserver.monitoring.sink import MultiSink
from policyserver.server.daemon import serving_watch
from policyserver.server.daemon.serving_watch import ServingWatch
from policyserver.server.processes.serving_report import ServingReport


class Clock:
    """The watch's, which stands still but for what a test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """By itself it looks at the beginning alone."""
    clock = Clock()
    monkeypatch.setattr(serving_watch, "time", clock)
    monkeypatch.setattr(serving_watch, "INTERVAL_S", 600.0)
    monkeypatch.setattr(serving_watch, "_JOIN_TIMEOUT_S", 60.0)
    return clock


class Processes:
    """Serving processes that answer after a while."""

    def __init__(self, clock: Clock, takes_s: float = 0.0) -> None:
        self.clock = clock
        self.judged = 0
        self.takes_s = takes_s
        self.answers = threading.Event()
        self.answers.set()

    def ask(self, timeout_s: float, on_late: Callable[[Any], None]) -> Sequence[ServingReport]:
        self.answers.wait(60.0)
        self.clock.now_s += self.takes_s
        return [ServingReport({})]

    def judge(self, report: ServingReport) -> None:
        self.judged += 1


def watch(processes: Processes) -> ServingWatch:
    """Watch processes, after the first look."""
    watching = ServingWatch(processes.ask, MultiSink(), {"run": "r", "policy": "PPO", "worker": "w"}, processes.judge)
    assert watching.wait_looked(60.0)
    processes.judged = 0
    processes.clock.now_s += processes.takes_s  # it rests for as long as it took
    return watching


def test_the_first_report_is_asked_for_at_once() -> None:
    asked = threading.Event()

    def ask(*_: object) -> list[ServingReport]:
        asked.set()
        return []

    with contextlib.closing(ServingWatch(ask, MultiSink(), {})):
        assert asked.wait(60.0), "a server that serves is ready to whatever asks /readyz"


def test_a_look_is_done_at_once_and_is_waited_for(clock: Clock) -> None:
    processes = Processes(clock)
    watching = watch(processes)
    try:
        for look in range(1, 4):
            watching.look()
            assert watching.wait_looked(60.0)
            assert processes.judged == look
    finally:
        watching.close()
    assert processes.judged == 4, "a last time at the end"
    watching.close()


def test_a_wait_is_bounded_and_what_is_asked_meanwhile_is_the_same_look(clock: Clock) -> None:
    processes = Processes(clock)
    watching = watch(processes)
    processes.answers.clear()
    try:
        watching.look()
        watching.look()
        assert not watching.wait_looked(0.05)
        processes.answers.set()
        assert watching.wait_looked(60.0)
        assert processes.judged == 1
        assert watching.wait_looked(0.0), "nothing is asked for"
    finally:
        processes.answers.set()
        watching.close()


def test_looks_leave_the_processes_as_much_time_as_they_take(clock: Clock) -> None:
    processes = Processes(clock, takes_s=5.0)
    watching = watch(processes)
    try:
        watching.look()
        assert watching.wait_looked(60.0)
        for waited_s in (0.0, 4.0):
            clock.now_s += waited_s
            watching.look()
            assert watching.wait_looked(0.0)
            assert processes.judged == 1
        clock.now_s += 1.0
        watching.look()
        assert watching.wait_looked(60.0)
        assert processes.judged == 2
    finally:
        watching.close()


@pytest.mark.parametrize("fails", [True, False])
def test_an_update_does_not_wait_for_a_look_that_fails_or_for_one_after_the_end(fails: bool, clock: Clock) -> None:
    processes = Processes(clock)

    def judge(report: ServingReport) -> None:
        processes.judged += 1
        if fails:
            raise RuntimeError("a judge's own fault")

    watching = ServingWatch(processes.ask, MultiSink(), {"run": "r", "policy": "PPO", "worker": "w"}, judge)
    assert watching.wait_looked(60.0), "the first look is done at once"
    assert processes.judged == 1
    watching.look()
    assert watching.wait_looked(60.0)
    assert processes.judged == 2
    watching.close()
    watching.look()
    assert watching.wait_looked(60.0)


def test_a_judge_that_fails_takes_no_episode_of_any_process_with_it(caplog: pytest.LogCaptureFixture) -> None:
    columns: dict[str, list[Any]] = {
        "client": ["stream:one"], "records_in": [()], "episode": ["1"], "return": [5.0], "length": [10], "seconds": [0.5],
        "weights_seq_no": [3], "trained": [True], "given": [0], "overridden": [0], "ended": ["terminated"], "explored": [True],
        "decided_by": ["live"], "greedy": [False],
    }  # fmt: skip
    reports = [ServingReport({"boot_id": boot * 16}, columns) for boot in "ab"]
    judged: list[ServingReport] = []
    rounds: list[int] = []
    written: list[Points] = []

    def judge(report: ServingReport) -> None:
        judged.append(report)
        raise ValueError("a judge's own fault")

    sink: Any = SimpleNamespace(write=written.append)
    tags = {"run": "r", "policy": "PPO", "worker": "w"}
    with contextlib.closing(ServingWatch(lambda *_: reports, sink, tags, judge, rounds.append)) as watching:
        assert watching.wait_looked(60.0)
        assert judged[:2] == reports
        assert rounds[0] == 2
        assert [points.measurement for points in written].count(EPISODE.name) >= 2
    assert caplog.text.count("a judge's own fault") == 1, "told once"

"""The serving processes are asked once a second, and at once where an update wants their episodes judged before it is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from policyserver.monitoring.sink import MultiSink
from policyserver.server.daemon.serving_watch import INTERVAL_S, ServingWatch
from policyserver.server.processes.serving_report import ServingReport


class Processes:
    """Serving processes that answer after a while."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.asked: list[float] = []
        self.judged = 0
        self._takes_s = takes_s
        self.answers = threading.Event()
        self.answers.set()

    def ask(self, timeout_s: float, on_late: Callable[[Any], None]) -> Sequence[ServingReport]:
        self.asked.append(time.monotonic())
        self.answers.wait(10.0)
        time.sleep(self._takes_s)
        return [ServingReport({})]

    def judge(self, report: ServingReport) -> None:
        self.judged += 1


def watch(processes: Processes) -> ServingWatch:
    return ServingWatch(processes.ask, MultiSink(), {"run": "r", "policy": "PPO", "worker": "w"}, processes.judge)


def test_a_look_is_done_at_once_and_is_waited_for() -> None:
    processes = Processes()
    watching = watch(processes)
    try:
        begun = time.monotonic()
        for look in range(1, 4):
            watching.look()
            assert watching.wait_looked(10.0)
            assert processes.judged == look
            time.sleep(0.01)  # it rests for as long as it took
        assert time.monotonic() - begun < INTERVAL_S
    finally:
        watching.close()
    assert processes.judged == 4, "a last time at the end"
    watching.close()


def test_a_wait_is_bounded_and_what_is_asked_meanwhile_is_the_same_look() -> None:
    processes = Processes()
    processes.answers.clear()
    watching = watch(processes)
    try:
        watching.look()
        watching.look()
        assert not watching.wait_looked(0.05)
        processes.answers.set()
        assert watching.wait_looked(10.0)
        assert processes.judged == 1
        assert watching.wait_looked(0.0), "nothing is asked for"
    finally:
        processes.answers.set()
        watching.close()


def test_looks_leave_the_processes_as_much_time_as_they_take() -> None:
    processes = Processes(takes_s=0.05)
    watching = watch(processes)
    try:
        watching.look()
        assert watching.wait_looked(10.0)
        watching.look()
        assert watching.wait_looked(0.0)
        assert processes.judged == 1
    finally:
        watching.close()


@pytest.mark.parametrize("fails", [True, False])
def test_an_update_does_not_wait_for_a_look_that_fails_or_for_one_after_the_end(fails: bool) -> None:
    processes = Processes()

    def judge(report: ServingReport) -> None:
        processes.judged += 1
        if fails:
            raise RuntimeError("a judge's own fault")

    watching = ServingWatch(processes.ask, MultiSink(), {"run": "r", "policy": "PPO", "worker": "w"}, judge)
    watching.look()
    assert watching.wait_looked(10.0)
    assert processes.judged == 1
    watching.close()
    watching.look()
    assert watching.wait_looked(10.0)

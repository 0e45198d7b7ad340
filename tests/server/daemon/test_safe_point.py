"""What other threads ask of the main thread is done at its safe point, in order, and refused at the end."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from policyserver.server.control.admin_errors import AdminError
from policyserver.server.daemon.safe_point import SafePoint


def test_what_is_asked_is_done_in_the_thread_that_passes_by() -> None:
    interrupted: list[int] = []
    point = SafePoint(lambda: interrupted.append(1), threading.Event())
    answer = point.ask(threading.get_ident)
    assert interrupted == [1], "a waiting sample() is to return"
    assert not answer.done()
    passing = threading.Thread(target=point.pass_by)
    passing.start()
    passing.join()
    assert answer.result(30.0) == passing.ident != threading.get_ident()


def test_an_error_is_the_askers_and_the_next_task_is_done() -> None:
    point = SafePoint(lambda: None, threading.Event())
    failed, done = point.ask(lambda: 1 // 0), point.ask(lambda: 2)
    point.pass_by()
    with pytest.raises(ZeroDivisionError):
        failed.result(0.0)
    assert done.result(0.0) == 2


def test_it_is_awaited_while_something_is_asked_or_learning_pauses_or_the_server_stops() -> None:
    stopping = threading.Event()
    point = SafePoint(lambda: None, stopping)
    assert not point.is_awaited
    point.ask(lambda: 1)
    assert point.is_awaited
    point.pass_by()
    assert not point.is_awaited
    point.pause(True)
    assert point.is_awaited
    point.pause(False)
    point.pass_by()
    assert not point.is_awaited
    stopping.set()
    assert point.is_awaited


def test_what_is_asked_before_or_after_the_end_is_refused() -> None:
    point = SafePoint(lambda: None, threading.Event())
    before = point.ask(lambda: 1)
    point.close()
    after = point.ask(lambda: 2)
    for answer in (before, after):
        with pytest.raises(AdminError, match="received one that drains"):
            answer.result(0.0)


def test_a_task_that_the_end_of_draining_breaks_off_answers_and_lets_it_through() -> None:
    class Alarm(BaseException):
        pass

    def broken_off() -> None:
        raise Alarm

    point = SafePoint(lambda: None, threading.Event())
    answer = point.ask(broken_off)
    with pytest.raises(Alarm):
        point.pass_by()
    with pytest.raises(AdminError):
        answer.result(0.0)


@pytest.mark.long
def test_the_thread_stays_while_learning_is_paused_does_what_is_asked_and_its_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("policyserver.server.daemon.safe_point.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    point = SafePoint(lambda: None, threading.Event())
    point.pause(True)
    clocks_s: list[float] = []

    def pass_by() -> None:
        clocks_s.append(point.clock_s())
        point.pass_by()
        clocks_s.append(point.clock_s())

    passing = threading.Thread(target=pass_by)
    passing.start()
    assert point.ask(lambda: 1).result(30.0) == 1
    now_s[0] += 30.0
    passing.join(0.05)
    assert passing.is_alive()
    point.pause(False)
    passing.join(30.0)
    assert not passing.is_alive()
    assert clocks_s == [100.0, 100.0], "half a minute was spent here"


def test_no_pause_outlasts_the_server() -> None:
    stopping = threading.Event()
    point = SafePoint(lambda: None, stopping)
    point.pause(True)
    passing = threading.Thread(target=point.pass_by)
    passing.start()
    stopping.set()
    point.wake()
    passing.join(30.0)
    assert not passing.is_alive()

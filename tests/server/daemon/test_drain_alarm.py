"""The time limit of a stop breaks off what runs, waits for what is held, and goes on after it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from policyserver.server.daemon.daemon_errors import DrainTimeoutError
from policyserver.server.daemon.drain_alarm import DrainAlarm
from policyserver.server.daemon.second_signal import SecondSignal

LIMIT_S = 0.01
LONG_S = 600.0
"""A limit that is not over before it is held or ended, however long this thread has to wait for a processor."""


@pytest.fixture
def alarm() -> Iterator[DrainAlarm]:
    before = signal.getsignal(signal.SIGALRM)
    alarm = DrainAlarm()
    alarm.handle()
    yield alarm
    alarm.end()
    signal.signal(signal.SIGALRM, before)


def left_s() -> float:
    """Return the seconds until the alarm goes off; 0 if it does not."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_it_breaks_off_what_runs_until_it_is_ended(alarm: DrainAlarm) -> None:
    with pytest.raises(DrainTimeoutError):  # noqa: PT012
        alarm.begin(LIMIT_S)
        time.sleep(60.0)
    alarm.begin(LONG_S)
    assert 0.0 < left_s() <= LONG_S
    alarm.end()
    assert left_s() == 0.0


def test_what_is_held_is_not_broken_off_and_what_comes_after_it_is(alarm: DrainAlarm) -> None:
    was_held = False
    with pytest.raises(DrainTimeoutError):  # noqa: PT012
        with alarm.held():
            alarm.begin(LIMIT_S)
            with alarm.held():
                time.sleep(2 * LIMIT_S)
            time.sleep(2 * LIMIT_S)
            was_held = True
        time.sleep(60.0)
    assert was_held


def test_a_limit_that_runs_stands_still_while_it_is_held(alarm: DrainAlarm) -> None:
    alarm.begin(LONG_S)
    with alarm.held():
        assert left_s() == 0.0
        with alarm.held():
            pass
        assert left_s() == 0.0
    assert 0.0 < left_s() <= LONG_S


def test_one_that_goes_off_as_it_is_held_comes_after_it(alarm: DrainAlarm) -> None:
    was_held = False
    with pytest.raises(DrainTimeoutError):  # noqa: PT012
        with alarm.held():
            signal.raise_signal(signal.SIGALRM)
            was_held = True
        time.sleep(60.0)
    assert was_held


def test_what_is_held_may_fail_and_end_the_limit(alarm: DrainAlarm) -> None:
    with pytest.raises(ValueError, match="as before"), alarm.held():  # noqa: PT012
        alarm.begin(LONG_S)
        alarm.end()
        raise ValueError("as before")
    assert left_s() == 0.0


def test_a_signal_that_comes_with_the_first_one_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserver.server.daemon.second_signal._SAME_S", LONG_S)
    second = SecondSignal()
    assert second.ends_at_once(signal.SIGTERM), "without a stop that is known it would be the first"
    second.note_stop()
    assert not second.ends_at_once(signal.SIGTERM)
    monkeypatch.setattr("policyserver.server.daemon.second_signal._SAME_S", 0.0)
    assert second.ends_at_once(signal.SIGTERM)
    assert second.ends_at_once(signal.SIGINT)
    assert not second.ends_at_once(signal.SIGHUP), "the terminal that is closed after Ctrl-C"

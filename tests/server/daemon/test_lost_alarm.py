"""The end of a time limit that Python could not raise is raised a moment later, and is not printed."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from policyserver.server.daemon.daemon_errors import DrainTimeoutError
from policyserver.server.daemon.lost_alarm import raised_again

LIMIT_S = 0.02


@pytest.fixture
def alarm() -> Iterator[None]:
    def on_alarm(_: int, __: Any) -> None:
        raise DrainTimeoutError("it took too long")

    before = signal.signal(signal.SIGALRM, on_alarm)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Slow:
    """Takes its time to be destroyed."""

    def __del__(self) -> None:
        time.sleep(5.0)


@pytest.mark.usefixtures("alarm")
def test_an_alarm_in_a_destructor_is_raised_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    slow = [Slow()]
    with raised_again(), pytest.raises(DrainTimeoutError):  # noqa: PT012
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        slow.clear()
        time.sleep(5.0)
    assert "Traceback" not in capfd.readouterr().err


def test_what_else_python_can_not_raise_is_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Failing:
        def __del__(self) -> None:
            raise ValueError("as before")

    failing = [Failing()]
    with raised_again():
        failing.clear()
    assert [str(each.exc_value) for each in told] == ["as before"]
    assert sys.unraisablehook == told.append

from __future__ import annotations

import threading

from pipelines.pacer import Pacer
from pipelines.run_state import RunState

WAIT_S = 10.0


def in_background(pacer: Pacer, count: int) -> threading.Thread:
    thread = threading.Thread(target=pacer.admit, args=(count,))
    thread.start()
    return thread


def test_steps_pass_until_the_limit_and_then_wait_for_the_learner() -> None:
    pacer = Pacer(100, RunState(1, None))
    pacer.admit(60)
    pacer.admit(60)
    waiting = in_background(pacer, 10)
    waiting.join(0.05)
    assert waiting.is_alive()
    pacer.update(100)
    waiting.join(0.05)
    assert waiting.is_alive(), "as many wait at the server as may"
    pacer.update(99)
    waiting.join(WAIT_S)
    assert not waiting.is_alive()


def test_the_end_of_the_run_lets_everything_pass() -> None:
    run = RunState(1, None)
    pacer = Pacer(1, run)
    pacer.admit(1)
    waiting = in_background(pacer, 1)
    run.stopping.set()
    pacer.update(1_000)
    waiting.join(WAIT_S)
    assert not waiting.is_alive()


def test_without_a_limit_nothing_waits() -> None:
    pacer = Pacer(None, RunState(1, None))
    pacer.update(10**9)
    pacer.admit(10**9)

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from client import ClientClosedError, PolicyClient
from client.calls import Call
from client.turnstile import TURN_S, Turnstile
from tests.client.reference_server import ReferenceServer
from tests.client.test_threads_share_a_stream import wait_until

ZEROS = np.zeros(10, np.float32)


def call() -> Call:
    waiter = threading.Lock()
    waiter.acquire()
    return Call(waiter)


def woken(calls: list[Call]) -> list[int]:
    """Return which of the calls may go on."""
    return [index for index, each in enumerate(calls) if not each.waiter.locked()]


@pytest.fixture
def calls() -> list[Call]:
    return [call() for _ in range(4)]


class Clock:
    """A clock that stands still until it is told otherwise."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("client.turnstile.time", clock)
    return clock


@pytest.fixture
def turnstile(clock: Clock, calls: list[Call]) -> Turnstile:
    """Have all calls answered at the same moment."""
    turnstile = Turnstile()
    for each in calls:
        turnstile.admit(each)
    return turnstile


def test_each_is_woken_by_the_one_before_it(turnstile: Turnstile, calls: list[Call]) -> None:
    for number, each in enumerate(calls):
        assert woken(calls) == list(range(number + 1))
        assert len(turnstile) == 3 - number
        assert turnstile.is_busy
        assert turnstile.pass_on(each) == (number == 3)
    assert not turnstile.is_busy
    assert not turnstile.pass_on(calls[0])


def test_a_turn_is_passed_on_once(turnstile: Turnstile, calls: list[Call]) -> None:
    turnstile.pass_on(calls[0])
    turnstile.pass_on(calls[0])
    assert woken(calls) == [0, 1]


def test_who_leaves_the_line_is_passed_over(turnstile: Turnstile, calls: list[Call]) -> None:
    turnstile.leave(calls[1])
    turnstile.leave(calls[0])  # was woken already: its turn is still to be passed on
    turnstile.pass_on(calls[0])
    assert woken(calls) == [0, 2]


def test_whoever_runs_late_wakes_all_the_others(turnstile: Turnstile, calls: list[Call], clock: Clock) -> None:
    clock.now_s += 2 * TURN_S
    assert not turnstile.is_moving
    turnstile.pass_on(calls[0])
    assert woken(calls) == [0, 1, 2, 3]


def test_after_that_they_go_one_by_one_again(turnstile: Turnstile, calls: list[Call], clock: Clock) -> None:
    clock.now_s += 2 * TURN_S
    turnstile.pass_on(calls[0])
    more = [call(), call()]
    for each in more:
        turnstile.admit(each)
    for each in calls[1:3]:
        turnstile.pass_on(each)
    assert woken(more) == []
    turnstile.pass_on(calls[3])
    assert woken(more) == [0]


def test_the_next_answer_frees_those_who_wait_for_one_that_never_comes(turnstile: Turnstile, calls: list[Call], clock: Clock) -> None:
    clock.now_s += 2 * TURN_S
    late = call()
    turnstile.admit(late)
    assert woken(calls) == [0, 1, 2, 3]
    for each in calls[1:]:
        turnstile.pass_on(each)
    assert not late.waiter.locked()


def test_a_caller_that_is_interrupted_holds_up_nobody(
    server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that comes when the answer has just been received, before the others are woken."""
    ids = client.start_episodes(16)
    router, first = client._router, ids[0]
    wait = router.wait

    def interrupted(waiting: Call, timeout_s: float) -> None:
        wait(waiting, timeout_s)
        if waiting.parts[0].rows.episodes[0].id == first and not router.shared.turnstile.is_busy:
            raise AssertionError("the caller was woken without a turn")
        if waiting.parts[0].rows.episodes[0].id == first:
            raise KeyboardInterrupt

    monkeypatch.setattr(router, "wait", interrupted)
    server.hold()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(client.get_action, episode, ZEROS, timeout_s=5.0) for episode in ids]
        wait_until(lambda: client.counters().rows_sent + len(client._router._given._queue) == 16)
        server.release()
        with pytest.raises(KeyboardInterrupt):
            asked[0].result()
        assert [future.result() for future in asked[1:]] == [0] * 15
    monkeypatch.undo()
    assert client.get_action(first, ZEROS) == 0  # its step was frozen: the same question, the same answer


def test_close_wakes_those_in_line_too(server: ReferenceServer, client: PolicyClient) -> None:
    """Here whoever has the turn never passes it on, and no answer follows."""
    ids = client.start_episodes(2)
    client.get_action(ids[0], ZEROS)
    turnstile, stuck = client._router.shared.turnstile, call()
    server.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_action, ids[1], ZEROS, timeout_s=30.0)
        wait_until(lambda: client.counters().rows_sent == 2)
        with client._router.shared.lock:
            turnstile.admit(stuck)
            turnstile._moved_s = float("inf")
        server.release()
        wait_until(lambda: len(turnstile) == 1)
        began = time.monotonic()
        client.close()
        assert waiting.result() == 0
        assert time.monotonic() - began < 5.0
    with pytest.raises(ClientClosedError):
        client.get_action(ids[1], ZEROS)


def test_a_caller_that_computes_for_long_holds_up_nobody(client: PolicyClient) -> None:
    """What a caller does once it runs is its own affair: the others have been woken by then."""
    ids = client.start_episodes(8)
    computing, done = threading.Event(), threading.Event()

    def slow() -> None:
        client.get_action(ids[0], ZEROS)
        computing.set()
        done.wait(10.0)

    with ThreadPoolExecutor(8) as pool:
        blocked = pool.submit(slow)
        for _ in range(20):
            assert list(pool.map(lambda episode: client.get_action(episode, ZEROS, timeout_s=5.0) is not None, ids[1:])) == [True] * 7
        assert computing.wait(5.0)
        assert not blocked.done()
        done.set()
        blocked.result()

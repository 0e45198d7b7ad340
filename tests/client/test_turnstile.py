from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policyserver.client import ClientClosedError, PolicyClient
from policyserver.client.calls import Call
from policyserver.client.turnstile import HOLD_S, TURN_S, Turnstile
from tests.client.reference_server import ReferenceServer
from tests.client.test_threads_share_a_stream import wait_until

ZEROS = np.zeros(10, np.float32)


def call() -> Call:
    waiter = threading.Lock()
    waiter.acquire()
    made = Call(waiter)
    made.home = SimpleNamespace(in_line=0)
    return made


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
    monkeypatch.setattr("policyserver.client.turnstile.time", clock)
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


def together(server: ReferenceServer, client: PolicyClient, pool: ThreadPoolExecutor, ids: list[str]) -> list[Future[Any]]:
    """Have the episodes ask so that one message answers them all, in this order; nothing else is on its way then."""
    fillers = client.start_episodes(2)
    server.hold()
    first = []
    for number, episode in enumerate(fillers, 1):
        first.append(pool.submit(client.get_action, episode, ZEROS, timeout_s=60.0))
        wait_until(lambda number=number: client.counters().messages_sent == number)  # type: ignore[misc]
    asked = []
    for number, episode in enumerate(ids, 1):
        asked.append(pool.submit(client.get_action, episode, ZEROS, timeout_s=60.0))
        wait_until(lambda number=number: len(client._router._given._queue) == number)  # type: ignore[misc]
    server.release()
    for future in first:
        future.result(5.0)
    return asked


def test_a_caller_that_is_interrupted_holds_up_nobody(
    server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that comes when the answer has just been received, before the others are woken."""
    ids = client.start_episodes(16)
    router = client._router
    wait = router.wait

    def interrupted(waiting: Call, timeout_s: float) -> None:
        wait(waiting, timeout_s)
        if waiting.parts[0].rows.episodes[0].id == ids[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(router, "wait", interrupted)
    monkeypatch.setattr("policyserver.client.turnstile.TURN_S", 60.0)
    monkeypatch.setattr("policyserver.client.transport.TURN_S", 60.0)
    with ThreadPoolExecutor(18) as pool:
        asked = together(server, client, pool, ids)
        with pytest.raises(KeyboardInterrupt):
            asked[0].result(5.0)
        assert [future.result(5.0) for future in asked[1:]] == [0] * 15
    monkeypatch.undo()
    assert server.servicer.message_rows == [1, 1, 16]
    assert client.get_action(ids[0], ZEROS) == 0  # its step was frozen: the same question, the same answer


def test_a_caller_that_is_woken_and_never_runs_holds_up_nobody(
    server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer follows that could free the others: the sender does."""
    ids = client.start_episodes(4)
    router, stuck = client._router, threading.Event()
    wait = router.wait

    def late(waiting: Call, timeout_s: float) -> None:
        wait(waiting, timeout_s)
        if waiting.parts[0].rows.episodes[0].id == ids[0]:
            stuck.wait(30.0)

    monkeypatch.setattr(router, "wait", late)
    with ThreadPoolExecutor(6) as pool:
        asked = together(server, client, pool, ids)
        try:
            assert [future.result(5.0) for future in asked[1:]] == [0] * 3
            assert not asked[0].done()
        finally:
            stuck.set()
        assert asked[0].result(5.0) == 0


@pytest.mark.parametrize("at", ["freeze_one", "send_one", "wait"])
def test_an_interrupt_anywhere_leaves_episode_and_thread_usable(
    at: str, server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to what was broken off comes while the same thread waits for that to its next call."""
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    router = client._router
    owner: Any = {"freeze_one": client._ledger, "send_one": router._given, "wait": router}[at]
    method = getattr(owner, at)

    def interrupted(*arguments: Any) -> None:
        if at != "wait":
            method(*arguments)
        raise KeyboardInterrupt

    server.hold()
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(owner, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(client.get_action, episode, ZEROS).result(5.0)
        monkeypatch.undo()
        wait_until(lambda: not router._given._queue)
        sent = client.counters().rows_sent
        again = pool.submit(client.get_action, episode, ZEROS)
        wait_until(lambda: client.counters().rows_sent == sent + 1)
        server.release()
        assert again.result(5.0) == 7 % 3
        assert client.counters().rows_sent == sent + 1
        assert pool.submit(client.get_action, episode, ZEROS).result(5.0) == 14 % 3
    client.end_episode(episode, ZEROS)
    assert len(server.servicer.episodes[episode].observations) == 4


def test_rows_of_a_quiet_runner_do_not_wait_for_the_crowd_of_another(client: PolicyClient) -> None:
    """Those in line are likely to ask where they were answered."""
    client.get_action(client.start_episode(), ZEROS)
    transport, turnstile = client._router._given, client._router.shared.turnstile
    calls = [call() for _ in range(4)]
    calls[3].home = transport
    with client._router.shared.lock:
        for each, others in zip(calls, (0, 0, 0, 1), strict=True):
            turnstile.admit(each)
            assert transport._others(transport._link) == others
        turnstile.open()
        assert transport._others(transport._link) == 0


def test_half_a_crowd_waits_for_nobody_and_fewer_for_the_rest(
    server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight are answered and go on: the first three that ask are held, with the fourth they leave."""
    monkeypatch.setattr("policyserver.client.turnstile.TURN_S", 60.0)
    monkeypatch.setattr("policyserver.client.transport.TURN_S", 60.0)
    monkeypatch.setattr("policyserver.client.transport.HOLD_S", 60.0)
    ids = client.start_episodes(4)
    client.get_actions(ids, np.zeros((4, 10)))
    transport, turnstile = client._router._given, client._router.shared.turnstile
    answered = [call() for _ in range(5)]
    with client._router.shared.lock:
        for each in answered:
            each.home = transport
            turnstile.admit(each)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.get_action, episode, ZEROS, timeout_s=60.0) for episode in ids[:3]]
        wait_until(lambda: len(transport._queue) == 3)
        assert not any(future.done() for future in asked)
        asked.append(pool.submit(client.get_action, ids[3], ZEROS, timeout_s=60.0))
        wait_until(lambda: server.servicer.message_rows == [4, 4])
        wait_until(lambda: len(turnstile) == 4 + 4)  # their answers are there; the five, whom no thread is behind, never pass a turn on
        with client._router.shared.lock:
            turnstile.open()
        assert [future.result(5.0) for future in asked] == [7 % 3] * 4


def test_rows_are_not_held_for_long(server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line moves all the time, and more are in it than have asked."""
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    monkeypatch.setattr(Turnstile, "is_moving", property(lambda self: True))
    client._router._given.in_line = 100
    began = time.monotonic()
    assert client.get_action(episode, ZEROS) == 7 % 3
    assert HOLD_S < time.monotonic() - began < 5.0


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

"""Callers that one message answers are woken one by one, and one that is late, interrupted or stuck holds up no other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policyserver.client import ClientClosedError, PolicyClient
from policyserver.client.wake_up_queue import HOLD_BACK_MAX_S, WAKE_UP_MAX_S, Call, WakeUpQueue
from tests.client.conftest import FAST
from tests.client.inner_parts import balancer_of, connection_of
from tests.client.reference_server import ReferenceServer
from tests.client.test_threads_share_a_stream import wait_until

ZEROS = np.zeros(10, np.float32)


def call() -> Call:
    waiter = threading.Lock()
    waiter.acquire()
    made = Call(waiter)
    made.home = SimpleNamespace(callers_waking=0)
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
    monkeypatch.setattr("policyserver.client.wake_up_queue.time", clock)
    return clock


@pytest.fixture
def wake_up_queue(clock: Clock, calls: list[Call]) -> WakeUpQueue:
    """Have all calls answered at the same moment."""
    wake_up_queue = WakeUpQueue()
    for each in calls:
        wake_up_queue.enqueue(each)
    return wake_up_queue


def test_each_is_woken_by_the_one_before_it(wake_up_queue: WakeUpQueue, calls: list[Call]) -> None:
    for number, each in enumerate(calls):
        assert woken(calls) == list(range(number + 1))
        assert len(wake_up_queue) == 3 - number
        assert wake_up_queue.is_busy
        assert wake_up_queue.wake_next(each) == (number == 3)
    assert not wake_up_queue.is_busy
    assert not wake_up_queue.wake_next(calls[0])


def test_a_caller_wakes_the_next_once(wake_up_queue: WakeUpQueue, calls: list[Call]) -> None:
    wake_up_queue.wake_next(calls[0])
    wake_up_queue.wake_next(calls[0])
    assert woken(calls) == [0, 1]


def test_a_caller_that_leaves_the_queue_is_passed_over(wake_up_queue: WakeUpQueue, calls: list[Call]) -> None:
    wake_up_queue.remove(calls[1])
    wake_up_queue.remove(calls[0])  # was woken already: it has yet to wake the next
    wake_up_queue.wake_next(calls[0])
    assert woken(calls) == [0, 2]


def test_a_caller_that_runs_late_wakes_all_the_others(wake_up_queue: WakeUpQueue, calls: list[Call], clock: Clock) -> None:
    clock.now_s += 2 * WAKE_UP_MAX_S
    assert not wake_up_queue.is_moving
    wake_up_queue.wake_next(calls[0])
    assert woken(calls) == [0, 1, 2, 3]


def test_after_that_they_go_one_by_one_again(wake_up_queue: WakeUpQueue, calls: list[Call], clock: Clock) -> None:
    clock.now_s += 2 * WAKE_UP_MAX_S
    wake_up_queue.wake_next(calls[0])
    more = [call(), call()]
    for each in more:
        wake_up_queue.enqueue(each)
    for each in calls[1:3]:
        wake_up_queue.wake_next(each)
    assert woken(more) == []
    wake_up_queue.wake_next(calls[3])
    assert woken(more) == [0]


def test_the_next_answer_frees_those_who_wait_for_one_that_never_comes(wake_up_queue: WakeUpQueue, calls: list[Call], clock: Clock) -> None:
    clock.now_s += 2 * WAKE_UP_MAX_S
    late = call()
    wake_up_queue.enqueue(late)
    assert woken(calls) == [0, 1, 2, 3]
    for each in calls[1:]:
        wake_up_queue.wake_next(each)
    assert not late.waiter.locked()


def together(server: ReferenceServer, client: PolicyClient, pool: ThreadPoolExecutor, ids: list[str]) -> list[Future[Any]]:
    """Have the episodes ask so that one message answers them all, in this order; nothing else is on its way then."""
    fillers = client.start_episodes(2)
    server.hold()
    first = []
    for number, episode in enumerate(fillers, 1):
        first.append(pool.submit(client.get_action, episode, ZEROS, timeout_s=300.0))
        wait_until(lambda number=number: client.counters().messages_sent == number)  # type: ignore[misc]
    asked = []
    for number, episode in enumerate(ids, 1):
        asked.append(pool.submit(client.get_action, episode, ZEROS, timeout_s=300.0))
        wait_until(lambda number=number: client.counters().rows_waiting == number)  # type: ignore[misc]
    server.release()
    for future in first:
        future.result(100.0)
    return asked


def test_a_caller_that_is_interrupted_holds_up_nobody(
    server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that comes when the answer has just been received, before the others are woken."""
    ids = client.start_episodes(16)
    balancer = balancer_of(client)
    wait = balancer.wait

    def interrupted(waiting: Call, timeout_s: float) -> None:
        wait(waiting, timeout_s)
        if waiting.parts[0].rows.episodes[0].id == ids[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(balancer, "wait", interrupted)
    monkeypatch.setattr("policyserver.client.wake_up_queue.WAKE_UP_MAX_S", 60.0)
    monkeypatch.setattr("policyserver.client.connection.WAKE_UP_MAX_S", 60.0)
    with ThreadPoolExecutor(18) as pool:
        asked = together(server, client, pool, ids)
        with pytest.raises(KeyboardInterrupt):
            asked[0].result(100.0)
        assert [future.result(100.0) for future in asked[1:]] == [0] * 15
    monkeypatch.undo()
    assert server.servicer.message_rows == [1, 1, 16]
    assert client.get_action(ids[0], ZEROS) == 0  # its step was frozen: the same question, the same answer


def test_a_caller_that_is_woken_and_never_runs_holds_up_nobody(
    server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer follows that could free the others: the sender does."""
    ids = client.start_episodes(4)
    balancer, stuck = balancer_of(client), threading.Event()
    wait = balancer.wait

    def late(waiting: Call, timeout_s: float) -> None:
        wait(waiting, timeout_s)
        if waiting.parts[0].rows.episodes[0].id == ids[0]:
            stuck.wait(300.0)

    monkeypatch.setattr(balancer, "wait", late)
    with ThreadPoolExecutor(6) as pool:
        asked = together(server, client, pool, ids)
        try:
            assert [future.result(100.0) for future in asked[1:]] == [0] * 3
            assert not asked[0].done()
        finally:
            stuck.set()
        assert asked[0].result(100.0) == 0


@pytest.mark.parametrize("at", ["prepare_one", "send_one", "wait"])
def test_an_interrupt_anywhere_leaves_episode_and_thread_usable(
    at: str, server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to what was broken off comes while the same thread waits for that to its next call."""
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    owner: Any = {"prepare_one": client._episodes, "send_one": connection_of(client), "wait": balancer_of(client)}[at]
    method = getattr(owner, at)

    def interrupted(*arguments: Any) -> None:
        if at != "wait":
            method(*arguments)
        raise KeyboardInterrupt

    server.hold()
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(owner, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(client.get_action, episode, ZEROS).result(100.0)
        monkeypatch.undo()
        wait_until(lambda: client.counters().rows_waiting == 0)
        sent = client.counters().rows_sent
        again = pool.submit(client.get_action, episode, ZEROS)
        wait_until(lambda: client.counters().rows_sent == sent + 1)
        server.release()
        assert again.result(100.0) == 7 % 3
        assert client.counters().rows_sent == sent + 1
        assert pool.submit(client.get_action, episode, ZEROS).result(100.0) == 14 % 3
    client.end_episode(episode, ZEROS)
    assert len(server.servicer.episodes[episode].observations) == 4


def test_rows_of_a_quiet_runner_do_not_wait_for_the_crowd_of_another(client: PolicyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queued callers are likely to ask where they were answered."""
    monkeypatch.setattr("policyserver.client.wake_up_queue.WAKE_UP_MAX_S", 60.0)
    client.get_action(client.start_episode(), ZEROS)
    connection, shared = connection_of(client), balancer_of(client).shared

    def waited_for() -> int:
        return connection._others(connection._stream)

    calls = [call() for _ in range(4)]
    calls[3].home = connection
    with shared.lock:
        for each, others in zip(calls, (0, 0, 0, 1), strict=True):
            shared.wake_up_queue.enqueue(each)
            assert waited_for() == others
        shared.wake_up_queue.wake_all()
        assert waited_for() == 0


@pytest.mark.long
def test_half_a_crowd_waits_for_nobody_and_fewer_for_the_rest(
    server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight are answered and go on: the first three that ask are held, with the fourth they leave."""
    monkeypatch.setattr("policyserver.client.wake_up_queue.WAKE_UP_MAX_S", 60.0)
    monkeypatch.setattr("policyserver.client.connection.WAKE_UP_MAX_S", 60.0)
    monkeypatch.setattr("policyserver.client.connection.HOLD_BACK_MAX_S", 60.0)
    ids = client.start_episodes(4)
    client.get_actions(ids, np.zeros((4, 10)))
    shared = balancer_of(client).shared
    answered = [call() for _ in range(5)]
    with shared.lock:
        for each in answered:
            each.home = connection_of(client)
            shared.wake_up_queue.enqueue(each)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.get_action, episode, ZEROS, timeout_s=300.0) for episode in ids[:3]]
        wait_until(lambda: client.counters().rows_waiting == 3)
        assert not any(future.done() for future in asked)
        asked.append(pool.submit(client.get_action, ids[3], ZEROS, timeout_s=300.0))
        wait_until(lambda: server.servicer.message_rows == [4, 4])
        wait_until(
            lambda: len(shared.wake_up_queue) == 4 + 4
        )  # their answers are there; the five, whom no thread is behind, never wake the next
        with shared.lock:
            shared.wake_up_queue.wake_all()
        assert [future.result(100.0) for future in asked] == [7 % 3] * 4


@pytest.mark.long
def test_rows_are_not_held_for_long(server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queued callers are woken all the time, and more are queued than have asked."""
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    monkeypatch.setattr(WakeUpQueue, "is_moving", property(lambda self: True))
    connection_of(client).callers_waking = 100
    began = time.monotonic()
    assert client.get_action(episode, ZEROS) == 7 % 3
    assert HOLD_BACK_MAX_S < time.monotonic() - began < FAST.action_timeout_s / 2


def test_close_wakes_queued_callers_too(server: ReferenceServer, client: PolicyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the woken caller never wakes the next, and no answer follows."""
    monkeypatch.setattr("policyserver.client.wake_up_queue.WAKE_UP_MAX_S", 60.0)
    ids = client.start_episodes(2)
    client.get_action(ids[0], ZEROS)
    shared = balancer_of(client).shared
    server.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_action, ids[1], ZEROS, timeout_s=300.0)
        wait_until(lambda: client.counters().rows_sent == 2)
        with shared.lock:
            shared.wake_up_queue.enqueue(call())
        server.release()
        wait_until(lambda: len(shared.wake_up_queue) == 1)
        began = time.monotonic()
        client.close()
        assert waiting.result() == 0
        assert time.monotonic() - began < FAST.action_timeout_s / 2
    with pytest.raises(ClientClosedError):
        client.get_action(ids[1], ZEROS)

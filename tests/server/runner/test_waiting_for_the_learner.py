"""A client and a real server whose learner has all the steps it wants: who can wait does, and who can't is answered at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest

from policyserver.client import PolicyClient, exchange
from policyserver.client.connection import Connection
from policyserver.common.tensors import to_tensor
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from policyserver.server.episodes.demand import Demand
from policyserver.v1 import policy_service_pb2 as pb
from tests.client.inner_parts import balancer_of, connection_of
from tests.server.core_harness import observation
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness, Unary, running_serving_loop

WaitUntil = Callable[[Callable[[], bool]], None]
WANTED = 4


@pytest.fixture
def serve() -> Iterator[ServingLoopHarness]:
    """Serve where four steps make a batch, and nobody takes any but the test."""
    with running_serving_loop(demand=Demand(fragment_steps=WANTED), hand_off=HandOffConfig(room_wait_s=3600.0)) as harness:
        fill(harness)
        yield harness


def fill(serve: ServingLoopHarness) -> None:
    """Record a batch."""
    with PolicyClient(serve.address, config=CLIENT) as client:
        episode = client.start_episode()
        for step in range(WANTED):
            client.get_action(episode, observation(step))
            client.log_returns(episode, 1.0)
        client.end_episode(episode, observation(WANTED))


def learn(serve: ServingLoopHarness, version: int) -> int:
    """Take a batch, as a learner does, and serve what it made of it."""
    steps = sum(map(len, serve.batch(WANTED)))
    serve.serving_loop.serve_weights(version)
    return steps


def waiting(serve: ServingLoopHarness) -> int:
    return int(serve.serving_loop.call(serve.serving_loop.core.snapshot).questions_waiting)


@pytest.mark.long
def test_a_call_waits_longer_than_its_answer_may_take_and_gets_the_new_policys(
    serve: ServingLoopHarness, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, waits, skipped_s = serve.client(), threading.Event(), 0.0
    wait_for_room = balancer_of(client).wait_for_room

    def noted(held: Mapping[Connection, int], timeout_s: float) -> None:
        waits.set()
        wait_for_room(held, timeout_s)

    monkeypatch.setattr(balancer_of(client), "wait_for_room", noted)
    monkeypatch.setattr(exchange, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + skipped_s))
    episode = client.start_episode()
    with ThreadPoolExecutor(1) as pool:
        action: Future[Any] = pool.submit(client.get_action, episode, observation(1))
        assert waits.wait(20.0)
        began_s = time.monotonic()
        skipped_s = 2 * CLIENT.action_timeout_s  # more than the time that an answer has
        time.sleep(0.2)
        assert not action.done()
        assert client.stats().questions_waiting == 1
        waited_s = time.monotonic() - began_s
        assert learn(serve, 7) == WANTED
        assert action.result(60.0) in range(3)
    assert client.weights_seq_no == 7
    stats = client.stats()
    assert (stats.questions_waiting, stats.questions_waited, stats.rows_refused) == (0, 1, 0)
    assert stats.learner_wait_s > waited_s


@pytest.mark.long
def test_who_can_not_wait_is_answered_at_once(serve: ServingLoopHarness) -> None:
    client = serve.client(replace(CLIENT, waits_for_learner=False))
    episode = client.start_episode()
    for step in range(3 * WANTED):
        client.get_action(episode, observation(step))
        client.log_returns(episode, 1.0)
    client.end_episode(episode, observation(0))
    assert client.stats().questions_waited == 0


@pytest.mark.long
def test_the_wait_for_the_learner_has_an_end_of_its_own(serve: ServingLoopHarness) -> None:
    client = serve.client(replace(CLIENT, learner_wait_timeout_s=0.3))
    episode = client.start_episode()
    began = time.monotonic()
    assert client.get_action(episode, observation(1)) in range(3)
    assert time.monotonic() - began >= 0.3
    assert client.stats().questions_waited == 1


@pytest.mark.long
def test_ends_given_actions_and_untrained_episodes_do_not_wait(serve: ServingLoopHarness) -> None:
    client = serve.client()
    given, untrained = client.start_episode(), client.start_episode(training_enabled=False)
    client.log_action(given, observation(0), 1)
    client.log_returns(given, 1.0)
    client.end_episode(given, observation(1))
    assert client.get_action(untrained, observation(0)) in range(3)
    client.end_episode(untrained, observation(1))
    assert client.stats().questions_waited == 0


@pytest.mark.long
def test_all_of_many_threads_go_on_when_there_is_room(serve: ServingLoopHarness, wait_until: WaitUntil) -> None:
    client, count = serve.client(), 40
    episodes = client.start_episodes(count)
    with ThreadPoolExecutor(count) as pool:
        actions = [pool.submit(client.get_action, episode, observation(1)) for episode in episodes]
        wait_until(lambda: waiting(serve) == count)
        learn(serve, 1)
        assert all(action.result(20.0) in range(3) for action in actions)


@pytest.mark.long
def test_a_batch_waits_as_a_whole_and_comes_back_in_order(serve: ServingLoopHarness, wait_until: WaitUntil) -> None:
    client = serve.client()
    ids = client.start_episodes(5)
    with ThreadPoolExecutor(1) as pool:
        actions = pool.submit(client.get_actions, ids, [observation(number) for number in range(5)])
        wait_until(lambda: waiting(serve) == 5)
        learn(serve, 1)
        assert actions.result(20.0).shape == (5,)
    client.end_episodes(ids, [observation(0)] * 5)


@pytest.mark.long
def test_unary_callers_wait_too_unless_they_say_that_they_can_not(serve: ServingLoopHarness, wait_until: WaitUntil) -> None:
    caller = Unary(serve.stub())
    patient, hurried = caller.start(), caller.start()
    assert caller.get_action(hurried, observation(0), no_wait=True)[0] in range(3)
    with ThreadPoolExecutor(1) as pool:
        action = pool.submit(caller.get_action, patient, observation(0))
        wait_until(lambda: waiting(serve) == 1)
        assert not action.done()
        learn(serve, 3)
        assert action.result(20.0)[0] in range(3)
    assert serve.stub().GetStats(pb.GetStatsRequest()).questions_waited == 1


@pytest.mark.long
def test_a_unary_caller_who_waits_longer_than_callers_may_be_silent_keeps_its_episode(wait_until: WaitUntil) -> None:
    demand, hand_off = Demand(fragment_steps=WANTED), HandOffConfig(room_wait_s=3600.0)
    with running_serving_loop(demand=demand, hand_off=hand_off, episodes=EpisodesConfig(max_open=8, unary_idle_timeout_s=600.0)) as serve:
        fill(serve)
        caller = Unary(serve.stub())
        patient = caller.start()
        with ThreadPoolExecutor(1) as pool:
            action = pool.submit(caller.get_action, patient, observation(0))
            wait_until(lambda: waiting(serve) == 1)
            silent = caller.start()  # later, so that the other one's time is over first
            serve.skip(600.0)
            wait_until(lambda: serve.serving_loop.call(lambda: silent not in episodes_of(serve)))
            assert not action.done()
            over_s = serve.now_s()
            learn(serve, 3)
            assert action.result(20.0)[0] in range(3)
        used_s = serve.serving_loop.call(lambda: episodes_of(serve)[patient].used_s)
        assert used_s >= over_s, "the time in which it may be silent begins with the answer"
        caller.end(patient, observation(1))


def episodes_of(serve: ServingLoopHarness) -> dict[str, Any]:
    """Return the episodes of unary callers by their ids; on the loop thread."""
    unary = cast(Any, serve.serving_loop)._servicer._unary
    return {episode_id: episode for (_, episode_id), episode in unary._episodes.items()}


@pytest.mark.long
def test_a_unary_caller_whose_deadline_ends_the_wait_goes_on(serve: ServingLoopHarness) -> None:
    caller = Unary(serve.stub())
    acting, asking, ending = caller.start(), caller.start(), caller.start()
    for number, episode in enumerate((acting, asking, ending), start=1):
        while waiting(serve) < number:  # the deadline may be over before the question arrives
            with pytest.raises(grpc.RpcError) as raised:
                serve.stub().GetAction(pb.GetActionRequest(episode_id=episode, observation=[to_tensor(observation(1))]), timeout=0.3)
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    caller.log_action(acting, observation(1), np.int64(2))
    caller.log_returns(acting, 1.0)
    caller.end(acting, observation(2))
    caller.end(ending, observation(2))
    learn(serve, 1)
    action, _ = caller.get_action(asking, observation(1))
    caller.log_returns(asking, 2.0)
    caller.end(asking, observation(2))
    segments = serve.segments(3, joined=False)
    assert sorted(float(segment.get_rewards().sum()) for segment in segments) == [0.0, 1.0, 2.0]
    assert {int(segment.get_actions()[0]) for segment in segments if segment.get_rewards().sum() > 0} == {2, action}


@pytest.mark.long
def test_a_stream_that_broke_while_a_question_waited_asks_again(serve: ServingLoopHarness, wait_until: WaitUntil) -> None:
    client = serve.client()
    episode = client.start_episode()
    with ThreadPoolExecutor(1) as pool:
        action = pool.submit(client.get_action, episode, observation(1))
        wait_until(lambda: waiting(serve) == 1)
        connection_of(client)._stream.call.cancel()
        wait_until(lambda: client.counters().connections == 2)
        learn(serve, 2)
        assert action.result(20.0) in range(3)
    client.log_returns(episode, 1.0)
    client.end_episode(episode, observation(2))
    (segment,) = serve.segments(1)
    assert segment.get_rewards().tolist() == [1.0]

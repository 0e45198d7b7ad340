"""The plain calls, over real gRPC: the same meaning as the stream, retries made safe by the sequence number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc
import numpy as np
import pytest

from policyserver.common.errors import from_rpc_error
from policyserver.common.tensors import to_tensor
from policyserver.server.config.serving_config import EpisodesConfig
from policyserver.server.grpc_front import unary_episodes
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import tensor_pb2
from tests.server.core_harness import observation, table_of
from tests.server.serving_loop_harness import ServingLoopHarness, Unary, running_serving_loop

WaitUntil = Callable[[Callable[[], bool]], None]


@pytest.fixture
def caller(serve: ServingLoopHarness) -> Unary:
    return Unary(serve.stub())


def failure(call: Callable[..., Any], *args: Any, **options: Any) -> tuple[str, str, str, str]:
    """Make a call that must fail; return status, reason, field and text as they came over the wire."""
    with pytest.raises(grpc.RpcError) as raised:
        call(*args, **options)
    error: Any = raised.value
    metadata = dict(error.trailing_metadata())
    assert type(from_rpc_error(error)).__name__ != "PolicyServerError"
    return error.code().name, metadata.get("policyserver-reason", ""), metadata.get("policyserver-field", ""), error.details()


@pytest.mark.long
def test_an_episode_of_plain_calls_arrives_as_it_was_said(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start()
    assert episode
    first, log_prob = caller.get_action(episode, observation(0))
    caller.log_returns(episode, 0.5)
    caller.log_returns(episode, 0.25, {"note": "second"})
    caller.log_action(episode, observation(1), np.int64(2))
    caller.log_returns(episode, 2.0)
    caller.end(episode, observation(2), truncated=True)
    (segment,) = serve.segments()
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert segment.get_actions().tolist() == [first, 2]
    assert segment.get_rewards().tolist() == [0.75, 2.0]
    assert segment.get_extra_model_outputs("action_logp")[0] == pytest.approx(log_prob)
    assert segment.get_infos() == [{}, {"note": "second"}, {}]
    assert segment.is_truncated


@pytest.mark.long
def test_a_repeated_call_with_its_number_gets_the_same_answer_and_counts_once(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start("a")
    assert caller.start("a") == "a", "starting again before the first observation changes nothing"
    first = caller.get_action(episode, observation(0), sequence=0)
    assert {caller.get_action(episode, observation(0), sequence=0) for _ in range(5)} == {first}
    caller.log_returns(episode, 1.5)
    answer = caller.get_action(episode, observation(1), sequence=1)
    caller.log_returns(episode, 10.0)
    assert {caller.get_action(episode, observation(1), sequence=1) for _ in range(5)} == {answer}
    caller.log_returns(episode, 20.0)
    for _ in range(3):
        caller.end(episode, observation(2), sequence=2)
    stats = serve.stub().GetStats(pb.GetStatsRequest())
    assert (stats.reward_sum, stats.steps_completed, stats.episodes_finished, stats.actions) == (31.5, 2, 1, 2)
    (segment,) = serve.segments()
    assert segment.get_rewards().tolist() == [1.5, 30.0]


@pytest.mark.long
def test_out_of_order_and_changed_repeats_are_refused(caller: Unary) -> None:
    episode = caller.start("a")
    caller.get_action(episode, observation(0), sequence=0)
    caller.get_action(episode, observation(1), sequence=1)
    assert failure(caller.get_action, episode, observation(1.5), sequence=1)[:3] == ("ALREADY_EXISTS", "SEQUENCE_CONFLICT", "sequence")
    assert failure(caller.get_action, episode, observation(3), sequence=3)[:2] == ("OUT_OF_RANGE", "SEQUENCE_GAP")
    assert failure(caller.start, "a")[:2] == ("ALREADY_EXISTS", "EPISODE_DUPLICATE")
    caller.get_action(episode, observation(2), sequence=2)


@pytest.mark.long
def test_wrong_episodes_are_told_apart(caller: Unary) -> None:
    code, reason, field, text = failure(caller.get_action, "nobody", observation())
    assert (code, reason, field) == ("NOT_FOUND", "EPISODE_UNKNOWN", "episode_id")
    assert "Episode nobody not found." in text
    episode = caller.start("a")
    caller.get_action(episode, observation())
    caller.end(episode, observation())
    for call in (
        lambda: caller.get_action(episode, observation()),
        lambda: caller.log_returns(episode, 1.0),
        lambda: caller.end(episode, observation(1)),
        lambda: caller.start(episode),
    ):
        code, reason, _, text = failure(call)
        assert (code, reason) == ("FAILED_PRECONDITION", "EPISODE_FINISHED")
        assert "already completed" in text


@pytest.mark.long
def test_bad_values_are_refused_by_name_and_nothing_is_changed(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start("a")
    assert failure(caller.log_returns, episode, 1.0)[:3] == ("INVALID_ARGUMENT", "BAD_REWARD", "reward")
    assert failure(caller.get_action, episode, observation(float("nan")))[:3] == ("INVALID_ARGUMENT", "BAD_OBSERVATION", "observation[0]")
    assert failure(caller.get_action, episode, np.zeros(9, np.float32))[:2] == ("INVALID_ARGUMENT", "BAD_OBSERVATION")
    assert failure(caller.get_action, episode, np.zeros(10, np.float64))[:2] == ("INVALID_ARGUMENT", "BAD_OBSERVATION")
    assert failure(caller.log_action, episode, observation(), np.int64(3))[:3] == ("INVALID_ARGUMENT", "BAD_ACTION", "action[0]")
    caller.get_action(episode, observation(0), sequence=0)
    caller.log_returns(episode, 1.0)
    assert failure(caller.log_returns, episode, float("inf"))[:2] == ("INVALID_ARGUMENT", "BAD_REWARD")
    request = pb.LogReturnsRequest(episode_id=episode, reward=1.0, info_json="[1]")
    assert failure(caller.stub.LogReturns, request)[:3] == ("INVALID_ARGUMENT", "BAD_MESSAGE", "info_json")
    torn = to_tensor(observation())
    torn.data = torn.data[:-1]
    assert failure(caller.stub.GetAction, pb.GetActionRequest(episode_id=episode, observation=[torn]))[:2] == (
        "INVALID_ARGUMENT",
        "BAD_MESSAGE",
    )
    assert failure(caller.get_action, episode, observation(0, 101))[0] == "INVALID_ARGUMENT"
    caller.end(episode, observation(1))
    (segment,) = serve.segments()
    assert segment.get_rewards().tolist() == [1.0], "the refused calls kept the reward for the good one"


@pytest.mark.long
def test_callers_with_names_have_their_own_episodes(serve: ServingLoopHarness, caller: Unary) -> None:
    other = Unary(serve.stub(), "other")
    for who in (caller, other):
        who.start("same")
        who.get_action("same", observation())
    caller.end("same", observation())
    other.get_action("same", observation(1))


@pytest.mark.long
def test_callers_that_come_and_go_leave_nothing_behind(serve: ServingLoopHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unary_episodes, "_ENDED_REMEMBERED", 10)
    stub = serve.stub()
    for number in range(30):
        caller = Unary(stub, f"{number}")
        caller.start("a")
        caller.end("a", observation(), sequence=0)
    unary = cast(Any, serve.serving_loop)._servicer._unary
    assert (len(unary._ended), len(unary._episodes)) == (10, 0)
    assert not table_of(serve.serving_loop.core).clients(), "who has no episode is forgotten at once"


@pytest.mark.long
def test_training_disabled_is_kept_for_the_whole_episode(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start("a", training_disabled=True)
    assert failure(caller.start, "a")[:2] == ("ALREADY_EXISTS", "EPISODE_DUPLICATE")
    caller.get_action(episode, observation())
    caller.log_returns(episode, 3.0)
    caller.end(episode, observation())
    assert serve.segments(wait_s=0.0) == []
    stats = serve.stub().GetStats(pb.GetStatsRequest())
    assert (stats.steps_untrained, stats.steps_completed, stats.reward_sum) == (1, 1, 3.0)


@pytest.mark.long
def test_a_silent_caller_loses_its_episode_after_the_unary_timeout(wait_until: WaitUntil) -> None:
    with running_serving_loop(episodes=EpisodesConfig(max_open=8, unary_idle_timeout_s=3600.0)) as serve:
        caller = Unary(serve.stub())
        episode = caller.start()
        caller.get_action(episode, observation(0))
        caller.log_returns(episode, 1.0)
        caller.get_action(episode, observation(1))
        serve.skip(3500.0)
        caller.log_returns(episode, 1.0)
        serve.skip(3500.0)
        assert serve.stub().GetStats(pb.GetStatsRequest()).episodes_reaped == 0, "it was not silent for so long"
        serve.skip(100.0)
        wait_until(lambda: serve.stub().GetStats(pb.GetStatsRequest()).episodes_reaped == 1)
        (segment,) = serve.segments()
        assert (segment.get_rewards().tolist(), segment.is_truncated) == ([1.0], True)
        assert failure(caller.get_action, episode, observation(2))[:2] == ("FAILED_PRECONDITION", "EPISODE_IDLE")
        assert serve.stub().GetStats(pb.GetStatsRequest()).episodes_reaped == 1


def test_while_draining_nothing_new_starts(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start()
    caller.get_action(episode, observation())
    serve.serving_loop.drain()
    assert failure(caller.start)[:2] == ("UNAVAILABLE", "SHUTTING_DOWN")
    caller.end(episode, observation())


@pytest.mark.long
def test_rewards_that_a_step_cannot_carry_are_refused_where_they_are_logged(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start("a")
    caller.get_action(episode, observation(0))
    caller.log_returns(episode, 3e38)
    for reward in (1e38, 1e308, float("inf"), float("nan")):
        assert failure(caller.log_returns, episode, reward)[:3] == ("INVALID_ARGUMENT", "BAD_REWARD", "reward")
    caller.log_returns(episode, -3e38)
    caller.log_returns(episode, -2.5)
    caller.get_action(episode, observation(1))
    caller.end(episode, observation(2))
    (segment,) = serve.segments()
    assert segment.get_rewards().tolist() == [-2.5, 0.0]


def test_a_number_ahead_of_its_turn_and_a_changed_first_one_are_told_as_such(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start("a")
    code, reason, field, text = failure(caller.get_action, episode, observation(0), sequence=3)
    assert (code, reason, field) == ("OUT_OF_RANGE", "SEQUENCE_GAP", "sequence")
    assert "expected 0, the episode's next number, received 3" in text
    first = caller.get_action(episode, observation(0), sequence=0)
    code, reason, field, text = failure(caller.get_action, episode, observation(0.5), sequence=0)
    assert (code, reason, field) == ("ALREADY_EXISTS", "SEQUENCE_CONFLICT", "sequence")
    assert "number 0 was applied before with another content" in text
    assert failure(caller.end, episode, observation(0), sequence=0)[:2] == ("ALREADY_EXISTS", "SEQUENCE_CONFLICT")
    assert caller.get_action(episode, observation(0), sequence=0) == first
    caller.get_action(episode, observation(1), sequence=1)
    assert failure(caller.get_action, episode, observation(0), sequence=0)[:2] == ("OUT_OF_RANGE", "SEQUENCE_GAP")
    caller.end(episode, observation(2), sequence=2)
    assert failure(caller.get_action, episode, observation(9), sequence=0)[:2] == ("FAILED_PRECONDITION", "EPISODE_FINISHED")


def test_refusals_name_the_field_of_the_request_and_count(serve: ServingLoopHarness, caller: Unary) -> None:
    episode = caller.start("a")
    assert failure(caller.get_action, episode, observation(float("nan")))[2] == "observation[0]"
    assert failure(caller.log_action, episode, observation(), np.int64(7))[2] == "action[0]"
    many = pb.GetActionRequest(episode_id=episode, observation=[to_tensor(observation())] * 100)
    assert failure(caller.stub.GetAction, many)[1:3] == ("BAD_MESSAGE", "observation")
    axes = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1] * 65, data=bytes(4))
    request = pb.GetActionRequest(episode_id=episode, observation=[axes])
    assert failure(caller.stub.GetAction, request)[:3] == ("INVALID_ARGUMENT", "BAD_MESSAGE", "observation[0]")
    assert failure(caller.get_action, "nobody", observation())[1] == "EPISODE_UNKNOWN"
    assert serve.stub().GetStats(pb.GetStatsRequest()).rows_refused == 5

"""The stream over real gRPC: handshakes, refusals of whole messages, health and reflection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import gymnasium as gym
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from policyserver.client import PolicyClient
from policyserver.common import spaces
from policyserver.common.errors import EpisodeFinishedError, HandshakeError, InvalidInputError, ServerUnavailableError, from_rpc_error
from policyserver.common.flags import PROTOCOL_VERSION
from policyserver.common.tensors import to_tensor
from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.grpc_front import messages as wire
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import space_pb2
from tests.server.core_harness import ACTION, OBSERVATION, observation
from tests.server.message_stream import Stream, one_start
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness, refused_start, running_serving_loop


def handshake_failure(serve: ServingLoopHarness, **handshake: Any) -> tuple[HandshakeError, str]:
    stream = Stream(serve, **handshake)
    with pytest.raises(grpc.RpcError) as raised:
        stream.receive()
    error: Any = raised.value
    decoded = from_rpc_error(error)
    assert isinstance(decoded, HandshakeError)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    return decoded, decoded.message


def test_the_handshake_says_what_the_server_is(serve: ServingLoopHarness) -> None:
    stream = Stream(serve)
    info = stream.receive().handshake.info
    assert (info.protocol_version, info.boot_id, list(info.endpoints)) == (PROTOCOL_VERSION, serve.serving_loop.boot_id, [serve.address])
    assert spaces.same(spaces.from_proto(info.observation_space, "o"), OBSERVATION)
    assert spaces.same(spaces.from_proto(info.action_space, "a"), ACTION)
    assert info == serve.stub().GetServerInfo(pb.GetServerInfoRequest())
    stream.close()


@pytest.mark.long
def test_each_client_is_told_another_endpoint_first_and_questions_get_the_list_as_it_is(serve: ServingLoopHarness) -> None:
    listed = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    serve.serving_loop.endpoints = lambda: listed
    told = [list(Stream(serve).receive().handshake.info.endpoints) for _ in range(4)]
    assert told == [[*listed[first:], *listed[:first]] for first in (0, 1, 2, 0)]
    assert [list(serve.stub().GetServerInfo(pb.GetServerInfoRequest()).endpoints) for _ in range(2)] == [listed] * 2


def test_another_protocol_version_is_refused_with_both_sides(serve: ServingLoopHarness) -> None:
    error, text = handshake_failure(serve, protocol_version=PROTOCOL_VERSION + 1)
    assert f"the server speaks {PROTOCOL_VERSION}, the client {PROTOCOL_VERSION + 1}" in text
    assert error.field == "protocol_version"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("observation_space", gym.spaces.Box(-100.0, 100.0, (11,), np.float32)),
        ("observation_space", gym.spaces.Box(-99.0, 100.0, (10,), np.float32)),
        ("observation_space", gym.spaces.Box(-100.0, 100.0, (10,), np.float64)),
        ("action_space", gym.spaces.Discrete(4)),
        ("action_space", gym.spaces.Discrete(3, start=1)),
    ],
)
def test_other_spaces_are_refused_with_both_sides(serve: ServingLoopHarness, name: str, theirs: gym.Space[Any]) -> None:
    error, text = handshake_failure(serve, **{name: spaces.to_proto(theirs)})
    ours = OBSERVATION if name == "observation_space" else ACTION
    assert spaces.describe(ours) in text
    assert spaces.describe(theirs) in text
    assert error.field == name
    with pytest.raises(HandshakeError):
        serve.client(CLIENT, **{name: theirs}).start_episode()


@pytest.mark.long
def test_a_handshake_whose_space_would_fill_the_memory_is_refused(serve: ServingLoopHarness) -> None:
    bound = to_tensor(np.zeros(1))
    large = space_pb2.Space(box=space_pb2.BoxSpace(low=bound, high=bound, shape=[2**24]))
    error, text = handshake_failure(serve, observation_space=space_pb2.Space(tuple=space_pb2.TupleSpace(spaces=[large] * 1000)))
    assert "expected at most 16777216 elements" in text
    assert error.field == "observation_space"


def test_a_client_without_a_name_and_a_batch_before_the_handshake_are_refused(serve: ServingLoopHarness) -> None:
    assert "client_id" in handshake_failure(serve, client_id="")[1]
    call = serve.stub().Step(iter([pb.StepRequest(batch=pb.StepBatch())]))
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    assert "expected a Handshake" in str(from_rpc_error(raised.value))


@pytest.mark.long
def test_many_messages_in_flight_are_all_answered(stream: Stream) -> None:
    for number in range(300):
        stream.send(pb.StepRequest(batch=pb.StepBatch(**one_start(message_id=number, episode_ids=[f"{number}"]))))
    assert sorted(stream.receive().batch.message_id for _ in range(300)) == list(range(300))


@pytest.mark.long
def test_a_real_client_plays_an_episode(serve: ServingLoopHarness) -> None:
    client = serve.client(observation_space=OBSERVATION, action_space=ACTION)
    episode = client.start_episode()
    actions = []
    for step in range(5):
        actions.append(client.get_action(episode, observation(step)))
        client.log_returns(episode, step, {"step": step})
    with pytest.raises(InvalidInputError, match="expected finite"):
        client.get_action(episode, observation(float("nan")))
    client.end_episode(episode, observation(5))
    with pytest.raises(EpisodeFinishedError):
        client.get_action(episode, observation())
    (segment,) = serve.segments(want_steps=5)
    assert segment.get_actions().tolist() == actions
    assert segment.get_rewards().tolist() == [0, 1, 2, 3, 4]
    stats = client.stats()
    assert (stats.reward_sum, stats.episodes_finished, stats.clients_connected, stats.return_mean) == (10.0, 1, 1, 10.0)


@pytest.mark.long
def test_a_client_that_closes_is_disconnected(serve: ServingLoopHarness, wait_until: Callable[[Callable[[], bool]], None]) -> None:
    with PolicyClient(serve.address) as client:
        client.start_episode()
        assert serve.stub().GetStats(pb.GetStatsRequest()).clients_connected == 1
    stub = serve.stub()
    wait_until(lambda: stub.GetStats(pb.GetStatsRequest()).clients_connected == 0)


@pytest.mark.long
def test_health_says_serving_and_while_draining_not_serving(serve: ServingLoopHarness) -> None:
    health = health_pb2_grpc.HealthStub(serve.channel())
    status = health_pb2.HealthCheckResponse
    for name in ("", "policyserver.v1.PolicyService"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == status.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60.0)
    assert next(watch).status == status.SERVING
    client = serve.client()
    episode = client.start_episode()
    client.get_action(episode, observation())
    serve.serving_loop.drain()
    assert next(watch).status == status.NOT_SERVING
    watch.cancel()
    refused = refused_start(client)
    assert isinstance(refused, ServerUnavailableError)
    assert "shutting down" in str(refused)
    client.end_episode(episode, observation())


def test_reflection_lists_the_service(serve: ServingLoopHarness) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(serve.channel())
    (reply,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = {service.name for service in reply.list_services_response.service}
    assert {"policyserver.v1.PolicyService", "grpc.health.v1.Health"} <= names


def test_reflection_can_be_switched_off() -> None:
    with running_serving_loop(listen=ListenConfig(reflection=False)) as serve:
        stub = reflection_pb2_grpc.ServerReflectionStub(serve.channel())
        with pytest.raises(grpc.RpcError) as raised:
            list(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.long
def test_an_answer_that_cannot_be_written_ends_the_stream_and_is_repeated_on_the_next(
    serve: ServingLoopHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encode, failures = wire.encode_replies, iter([RuntimeError("no room for the answer")])

    def fail_once(*arguments: Any) -> pb.StepResponse:
        if (error := next(failures, None)) is not None:
            raise error
        return encode(*arguments)

    monkeypatch.setattr(wire, "encode_replies", fail_once)
    with serve.client() as client:
        episode = client.start_episode()
        client.get_action(episode, observation(1.0), timeout_s=60.0)
        client.log_returns(episode, 2.5)
        client.end_episode(episode, observation(2.0))
        stats = client.stats()
        assert client.counters().connections == 2
    assert (stats.reward_sum, stats.steps_completed, stats.rows_repeated) == (2.5, 1, 1)
    assert "answers could not be written" in caplog.text

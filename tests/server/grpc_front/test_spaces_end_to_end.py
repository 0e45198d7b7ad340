"""Observations and actions of every kind of space, from the client's call to the learner's end and back, over real gRPC."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import grpc
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.client import BatchError, ClientConfig, HandshakeError, InvalidInputError, PolicyClient
from policyserver.client.messages import SpaceCodec, agree, step_batch, to_reply
from policyserver.client.rows import ClientEpisode
from policyserver.client.rows import OutgoingRows as ClientRows
from policyserver.common.acting.action_form import ActionForm
from policyserver.common.acting.leaf_checks import leaf_checks
from policyserver.common.errors import from_rpc_error
from policyserver.common.flags import PROTOCOL_VERSION, StepFlag
from policyserver.common.spaces import flatten, flatten_batch, from_proto, leaves, same, to_proto, unflatten_batch
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.episodes.batch import malformed
from policyserver.server.episodes.received_rows import Replies
from policyserver.server.grpc_front import messages as wire
from policyserver.server.policies.connectors.connector_policy import ConnectorPolicy
from policyserver.server.policies.module.inference import PolicyNet, UnsupportedModuleError
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from policyserver.server.runner.env_runner import ExternalEnvRunner
from policyserver.v1 import policy_service_pb2 as pb
from tests.common.space_strategies import ACTION_SPACES, SPACES, samples
from tests.server.core_harness import spaces_of
from tests.server.nested_module import NestedModule, nested_policy
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness, running_serving_loop

PICTURE = spaces.Dict(
    screen=spaces.Box(0, 255, (8, 8, 3), np.uint8),
    account=spaces.Tuple([spaces.Box(-np.inf, np.inf, (), np.float64), spaces.Box(-1.0, 1.0, (2,), np.float32)]),
    day=spaces.Discrete(7, start=1),
    switches=spaces.MultiBinary([2, 2]),
    orders=spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.int32, start=np.array([[0, -1], [5, 0]])),
)
LEVERS = spaces.MultiDiscrete([3, 2], start=[-1, 4])


def serving(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> AbstractContextManager[ServingLoopHarness]:
    """Serve a user's own RLModule on these spaces."""
    policy = nested_policy(observation_space, action_space)
    return running_serving_loop(policy, observation_space=observation_space, action_space=action_space)


def stack(space: gym.Space[Any], values: list[Any]) -> Any:
    """Make a batch of values."""
    return unflatten_batch(space, [np.stack(leaf) for leaf in zip(*(flatten(space, value) for value in values), strict=True)])


def unstack(space: gym.Space[Any], batch: Any, rows: int) -> list[Any]:
    """Take a batch apart."""
    codec = SpaceCodec(space, "action")
    return [codec.decode([leaf[row : row + 1] for leaf in flatten_batch(space, batch, rows=rows)]) for row in range(rows)]


def bits(space: gym.Space[Any], batch: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """What a batch says, to the bit, without any conversion on the way."""
    parts = flatten_batch(space, batch)
    assert [part.dtype for part in parts] == [leaf.dtype for leaf in leaves(space)]
    return [(str(part.dtype), part.shape, part.tobytes()) for part in parts]


# The wire alone -------------------------------------------------------------------------------------------------------------------------


def shake_hands(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Any:
    info = pb.GetServerInfoResponse(
        protocol_version=PROTOCOL_VERSION, observation_space=to_proto(observation_space), action_space=to_proto(action_space)
    )
    response = pb.StepResponse(handshake=pb.HandshakeReply(info=info))
    return agree(
        pb.StepResponse.FromString(response.SerializeToString()), observation_space, action_space, ClientConfig(max_message_bytes=1 << 20)
    )


@pytest.mark.long
@given(SPACES, ACTION_SPACES, st.integers(1, 4))
def test_rows_of_every_space_are_read_as_they_were_sent(observation_space: gym.Space[Any], action_space: gym.Space[Any], rows: int) -> None:
    agreement = shake_hands(observation_space, action_space)
    observations = stack(observation_space, samples(observation_space, rows))
    actions = stack(action_space, samples(action_space, rows))
    episodes = [ClientEpisode(f"{row}", True) for row in range(rows)]
    flags = [int(StepFlag.START | StepFlag.ACTION_GIVEN)] * rows
    columns = agreement.observation.encode_batch(observations, rows)[0], agreement.action.encode_batch(actions, rows)[0]
    sent = ClientRows(range(rows), episodes, [0] * rows, flags, [0.0] * rows, [""] * rows, *columns)
    message = pb.StepRequest.FromString(step_batch(7, [sent], agreement).SerializeToString()).batch
    received = wire.decode_batch(message, wire.MessageLimits.of(rows, observation_space, action_space))
    checks = [leaf_checks(observation_space, "observation"), leaf_checks(action_space, "action")]
    assert malformed(received, *checks) is None
    assert all(
        not check.bad_rows(leaf).size for check, leaf in zip(checks[0] + checks[1], received.observations + received.actions, strict=True)
    )
    assert bits(observation_space, unflatten_batch(observation_space, received.observations)) == bits(observation_space, observations)
    assert bits(action_space, unflatten_batch(action_space, received.actions)) == bits(action_space, actions)


@pytest.mark.long
@given(ACTION_SPACES, st.integers(1, 4))
def test_answers_of_every_space_are_read_as_members_of_it(action_space: gym.Space[Any], rows: int) -> None:
    agreement = shake_hands(spaces.Discrete(2), action_space)
    replies = Replies.empty(rows, [(leaf.shape, leaf.dtype) for leaf in agreement.action.leaves])
    values = samples(action_space, rows)
    replies.actions[0][:] = np.stack(values)
    message = pb.StepResponse.FromString(wire.encode_replies(7, replies).SerializeToString()).batch
    reply = to_reply(message, rows, agreement)
    for row, value in enumerate(values):
        decoded = agreement.action.decode([leaf[row : row + 1] for leaf in reply.actions])
        assert action_space.contains(decoded)
        assert np.array_equal(decoded, value)


# A real client and a real server --------------------------------------------------------------------------------------------------------


def learned(serve: ServingLoopHarness, count: int) -> list[SingleAgentEpisode]:
    """What arrives at the learner, in the order in which the episodes ended."""
    found: list[SingleAgentEpisode] = serve.segments(want_steps=count)
    for segment in found:
        segment.validate()
    return found


@settings(phases=[Phase.generate])  # a smaller example would take minutes to find
@given(SPACES, ACTION_SPACES, st.integers(0, 1000))
@pytest.mark.long
@pytest.mark.timeout(600)  # with the many examples of `make test-slow`
def test_what_a_client_says_arrives_bit_for_bit_at_the_learner_and_actions_are_members_of_their_space(
    observation_space: gym.Space[Any], action_space: gym.Space[Any], seed: int
) -> None:
    with (
        serving(observation_space, action_space) as serve,
        serve.client(observation_space=observation_space, action_space=action_space) as client,
    ):
        said = [samples(observation_space, 4, seed + number) for number in range(3)]
        done: list[list[Any]] = [[], [], []]
        ids = client.start_episodes(3)
        for step in range(2):
            batch = client.get_actions(ids[:2], stack(observation_space, [said[0][step], said[1][step]]))
            for actions, action in zip(done[:2], unstack(action_space, batch, 2), strict=True):
                actions.append(action)
        for episode, actions, values in zip(ids[:2], done, said, strict=False):
            actions.append(client.get_action(episode, values[2]))
        done[2] = samples(action_space, 3, seed)
        client.log_action(ids[2], said[2][0], done[2][0])
        client.log_actions(ids[2:], stack(observation_space, said[2][1:2]), stack(action_space, done[2][1:2]))
        client.log_action(ids[2], said[2][2], done[2][2])
        for episode, values in zip(ids, said, strict=True):
            client.end_episode(episode, values[3])
        segments = learned(serve, 9)
    bounded = not isinstance(action_space, spaces.Box) or action_space.is_bounded()
    assert all(action_space.contains(action) for action in done[2] + (done[0] + done[1] if bounded else []))
    form = ActionForm(action_space, normalize=True, clip=False)
    for segment, values, actions in zip(segments, said, done, strict=True):
        assert bits(observation_space, segment.get_observations()) == bits(observation_space, stack(observation_space, values))
        assert segment.get_observations(-1) is not None
        executed = form.to_environment(np.asarray(segment.get_actions()))
        np.testing.assert_allclose(executed, np.stack(actions), rtol=1e-5, atol=1e-5)
        assert np.isfinite(segment.get_extra_model_outputs("action_logp")).all()


@pytest.mark.long
def test_the_server_says_its_spaces_and_refuses_a_client_with_others() -> None:
    other = spaces.Dict({**PICTURE.spaces, "day": spaces.Discrete(7)})
    with serving(PICTURE, LEVERS) as serve:
        with serve.client(observation_space=PICTURE, action_space=LEVERS) as client:
            info = client.server_info()
            assert (info.observation_space, info.action_space) == (PICTURE, LEVERS)
            client.start_episode()
        answer = serve.stub().GetServerInfo(pb.GetServerInfoRequest())
        assert same(from_proto(answer.observation_space), PICTURE)
        differing: list[tuple[str, Any]] = [("observation_space", other), ("action_space", spaces.MultiDiscrete([3, 2]))]
        for name, theirs in differing:
            with serve.client(**{name: theirs}) as client, pytest.raises(HandshakeError) as refused:
                client.start_episode()
            assert refused.value.field == name


@pytest.mark.long
def test_a_wrong_leaf_is_refused_by_its_path_and_the_other_rows_go_on() -> None:
    good, bad = samples(PICTURE, 2)
    bad["account"][1][1] = 1.5
    with serving(PICTURE, LEVERS) as serve, serve.client() as client:
        ids = client.start_episodes(3)
        with pytest.raises(BatchError) as failed:
            client.get_actions(ids, stack(PICTURE, [good, bad, good]))
        (error,) = failed.value.errors.values()
        assert isinstance(error, InvalidInputError)
        assert (error.field, error.reason) == ("observation['account'][1]", "BAD_OBSERVATION")
        assert error.message.endswith("expected finite values from -1.0 to 1.0, received 1.5 at [1]")
        assert [LEVERS.contains(failed.value.actions[row]) for row in (0, 2)] == [True, True]
        with pytest.raises(InvalidInputError, match=r"action: expected finite values from 4 to 5, received 6 at \[1\]"):
            client.log_action(ids[0], good, [0, 6])
        with pytest.raises(InvalidInputError, match=r"observation\['day'\]: expected int64, received float64"):
            client.get_action(ids[0], {**good, "day": 1.5})
        assert LEVERS.contains(client.get_action(ids[1], good)), "the refused row changed nothing"
        client.log_action(ids[0], good, (1, 5))


@pytest.mark.long
def test_plain_calls_take_and_give_one_tensor_per_leaf() -> None:
    values = samples(PICTURE, 3)
    with serving(PICTURE, LEVERS) as serve:
        stub = serve.stub()
        episode = stub.StartEpisode(pb.StartEpisodeRequest()).episode_id

        def said(value: Any) -> dict[str, Any]:
            return {"episode_id": episode, "observation": [to_tensor(leaf) for leaf in flatten(PICTURE, value)]}

        answer = stub.GetAction(pb.GetActionRequest(**said(values[0])))
        action = from_tensor(answer.action[0], "action")
        assert LEVERS.contains(action)
        stub.LogAction(pb.LogActionRequest(**said(values[1]), action=[to_tensor(np.array([1, 4]))]))
        wrong: dict[str, Any] = said(values[1])
        wrong["observation"] = wrong["observation"][:-1]
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetAction(pb.GetActionRequest(**wrong))
        assert "observation: expected 6 tensors, received 5" in str(from_rpc_error(raised.value))
        stub.EndEpisode(pb.EndEpisodeRequest(**said(values[2])))
        (segment,) = learned(serve, 2)
    assert bits(PICTURE, segment.get_observations()) == bits(PICTURE, stack(PICTURE, values))
    assert (segment.get_actions() + LEVERS.start).tolist() == [action.tolist(), [1, 4]]


class Unknown(ConnectorV2):  # type: ignore[misc]
    """A user's connector, for which there can be no array code."""

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return batch


@pytest.mark.long
@pytest.mark.parametrize(("connectors", "path"), [([], VectorizedPolicy), ([Unknown], ConnectorPolicy)], ids=["arrays", "stock"])
def test_an_env_runner_serves_nested_spaces_and_its_algorithms_learner_learns_from_them(connectors: list[type], path: type) -> None:
    hand_off = HandOffConfig(segment_steps=4, sample_wait_s=5.0, batches_ahead=10.0)
    config = PPOConfig().environment(
        observation_space=PICTURE,
        action_space=LEVERS,
        env_config=ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=hand_off).to_env_config(),
    )
    config.env_runners(num_env_runners=0, env_to_module_connector=lambda env, spaces, device: [make() for make in connectors])
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=NestedModule))
    config.training(train_batch_size_per_learner=30, minibatch_size=10, num_epochs=1).debugging(seed=1, log_level="ERROR")
    learner = config.build_learner(spaces=spaces_of(PICTURE, LEVERS))
    runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=0)
    assert type(getattr(runner._policy, "live", runner._policy)) is path
    said = samples(PICTURE, 11)
    try:
        with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
            ids = client.start_episodes(3)
            for step, value in enumerate(said[:-1]):
                actions = client.get_actions(ids, stack(PICTURE, [value] * 3))
                assert all(LEVERS.contains(action) for action in actions)
                client.log_returns_batch(ids, [float(step)] * 3)
                if step == 4:
                    segments: Any = runner.sample(num_timesteps=12)
            client.end_episodes(ids, stack(PICTURE, said[-1:] * 3))
        segments += runner.sample(num_timesteps=18)
    finally:
        runner.stop()
    assert [len(segment) for segment in segments] == [4, 4, 4, 6, 6, 6]
    for segment in segments:
        begin = int(segment.t_started)
        assert bits(PICTURE, segment.get_observations()) == bits(PICTURE, stack(PICTURE, said[begin : begin + len(segment) + 1]))
        if begin:  # a segment repeats the last step of the one before it
            lookback = segment.get_observations(-1, neg_index_as_lookback=True)
            assert bits(PICTURE, stack(PICTURE, [lookback])) == bits(PICTURE, stack(PICTURE, [said[begin - 1]]))
    before = {name: value.copy() for name, value in learner.module[DEFAULT_MODULE_ID].get_state().items()}
    results = learner.update(episodes=segments, num_epochs=1, minibatch_size=10)
    assert np.isfinite(results[DEFAULT_MODULE_ID]["total_loss"].peek())
    after = learner.module[DEFAULT_MODULE_ID].get_state()
    assert all(not np.array_equal(before[name], after[name]) for name in before)


def test_a_module_whose_actions_do_not_fit_the_space_is_refused_before_it_serves() -> None:
    module = NestedModule(observation_space=PICTURE, action_space=spaces.Box(-1.0, 1.0, (3,)), model_config={})
    wider = spaces.Box(-1.0, 1.0, (2, 3))
    with pytest.raises(UnsupportedModuleError, match=r"NestedModule: expected actions of shape \(2, 3\) .*, received \(3,\)"):
        VectorizedPolicy(PolicyNet(module, explore=True), ActionForm(wider, normalize=True, clip=False), PICTURE, wider)

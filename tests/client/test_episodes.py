"""An episode of a client reaches the server step by step, each reward after its action, and what is wrong is refused before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.client import (
    EpisodeDuplicateError,
    EpisodeFinishedError,
    EpisodeUnknownError,
    HandshakeError,
    InvalidInputError,
    PolicyClient,
    ServerInternalError,
)
from policyserver.client.messages import to_stats
from policyserver.common.flags import StepFlag
from policyserver.v1 import policy_service_pb2 as pb
from tests.client.reference_server import ACTION_SPACE, OBSERVATION_SPACE, ReferenceServer

ZEROS = np.zeros(10, np.float32)


def test_an_episode_arrives_step_by_step_with_each_reward_after_its_action(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    for step in range(4):
        assert client.get_action(episode, np.full(10, step, np.float32)) == 7 * step % 3
        client.log_returns(episode, step)
        client.log_returns(episode, 0.5)
    client.end_episode(episode, np.full(10, 4, np.float32))
    served = server.servicer.episodes[episode]
    assert served.rewards == [0.0, 0.5, 1.5, 2.5, 3.5]
    assert [row[0] for row in served.observations] == [0, 1, 2, 3, 4]
    assert served.end is StepFlag.TERMINATED
    assert served.training_enabled
    assert client.weights_seq_no == 5


def test_an_action_is_a_member_of_the_action_space(client: PolicyClient) -> None:
    action = client.get_action(client.start_episode(), ZEROS)
    assert ACTION_SPACE.contains(action)
    assert isinstance(action, np.int64)


def test_an_episode_may_end_truncated_and_before_any_action(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode("first", training_enabled=False)
    client.end_episode(episode, ZEROS, truncated=True)
    served = server.servicer.episodes["first"]
    assert (served.next, served.end, served.training_enabled) == (1, StepFlag.TRUNCATED, False)


def test_a_given_action_is_logged_and_travels_with_its_own_number(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.log_action(episode, ZEROS, 2)
    assert client.get_action(episode, ZEROS) == 7 % 3
    client.log_action(episode, ZEROS, np.int32(1))
    assert server.servicer.episodes[episode].given == {0: 2, 2: 1}


def test_a_reward_before_the_first_action_is_dropped_and_counted(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.log_returns(episode, 5.0)
    client.get_action(episode, ZEROS)
    client.end_episode(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, 0.0]
    assert client.counters().rewards_dropped == 1


def test_an_info_travels_with_one_step_only(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 1.0, {"price": np.float32(2.5), "symbol": "AÄ"})
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 1.0)
    client.end_episode(episode, ZEROS)
    assert server.servicer.episodes[episode].infos == {1: '{"price": 2.5, "symbol": "A\\u00c4"}'}


def test_episode_ids_raise_what_rllib_raises_in_its_words(client: PolicyClient) -> None:
    client.start_episode("a")
    with pytest.raises(EpisodeDuplicateError, match=r"^Episode a is already started\.$"):
        client.start_episode("a")
    client.end_episode("a", ZEROS)
    for call in (
        lambda: client.end_episode("a", ZEROS),
        lambda: client.get_action("a", ZEROS),
        lambda: client.log_returns("a", 1.0),
        lambda: client.start_episode("a"),
    ):
        with pytest.raises(EpisodeFinishedError, match=r"^Episode a has already completed\.$"):
            call()
    with pytest.raises(EpisodeUnknownError, match=r"^Episode b not found\.$") as caught:
        client.get_action("b", ZEROS)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("episode_id", ["", "x" * 257, "\ud800", 7])
def test_what_cannot_name_an_episode_is_refused(client: PolicyClient, episode_id: Any) -> None:
    with pytest.raises(InvalidInputError, match="episode_id: expected a text of 1 to 256 bytes"):
        client.start_episode(episode_id)


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        (np.zeros(9, np.float32), r"observation: expected shape \[10\], received shape \[9\]"),
        ([float("nan")] * 10, "observation: expected finite numbers of float32, received nan"),
        (np.full(10, np.inf, np.float32), "received inf"),
        (["x"] * 10, r"observation: expected float32, received \['x', .*, no number"),
    ],
)
def test_a_bad_observation_is_refused_here_and_the_episode_goes_on(
    server: ReferenceServer, client: PolicyClient, observation: Any, text: str
) -> None:
    episode = client.start_episode()
    with pytest.raises(InvalidInputError, match=text):
        client.get_action(episode, observation)
    assert server.servicer.message_rows == []
    assert client.get_action(episode, [0] * 10) == 0


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), "much", None])
def test_a_bad_reward_is_refused_at_once_and_changes_nothing(server: ReferenceServer, client: PolicyClient, reward: Any) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 1.25)
    with pytest.raises(InvalidInputError, match="reward: expected a") as caught:
        client.log_returns(episode, reward)
    assert caught.value.reason == "BAD_REWARD"
    client.end_episode(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, 1.25]


def test_an_info_that_json_cannot_hold_is_refused(client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    for info in ({"x": object()}, {"x": float("nan")}, {"x": "y" * (1 << 20)}):
        with pytest.raises(InvalidInputError, match="info: expected"):
            client.log_returns(episode, 1.0, info)


def test_a_refused_row_keeps_its_reward_for_the_next_one(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 2.0)
    refusals = iter([ServerInternalError("incident 1"), None])
    server.servicer.refuse = lambda _id, _sequence: next(refusals)
    with pytest.raises(ServerInternalError, match="incident 1"):
        client.get_action(episode, ZEROS)
    client.log_returns(episode, 0.5)
    client.get_action(episode, np.ones(10, np.float32))
    assert server.servicer.episodes[episode].rewards == [0.0, 2.5]


def test_spaces_are_agreed_on_and_a_difference_names_both_sides(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    agreed = connect(observation_space=OBSERVATION_SPACE, action_space=ACTION_SPACE)
    assert agreed.get_action(agreed.start_episode(), ZEROS) == 0
    with pytest.raises(HandshakeError, match="observation_space: the server has Box") as caught:
        connect(observation_space=gym.spaces.Box(-100, 100, (9,), np.float32)).start_episode()
    assert caught.value.field == "observation_space"


def test_local_inference_says_that_it_does_not_exist_yet() -> None:
    with pytest.raises(NotImplementedError, match="local inference does not exist yet"):
        PolicyClient("localhost:9900", "local")
    with pytest.raises(ValueError, match="inference_mode: expected 'remote', received 'both'"):
        PolicyClient("localhost:9900", inference_mode="both")


def test_the_servers_reports_come_as_dataclasses(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    info, stats = client.server_info(), client.stats()
    assert (info.observation_space, info.action_space, info.boot_id) == (OBSERVATION_SPACE, ACTION_SPACE, server.servicer.boot_id)
    assert (stats.episodes_open, stats.return_mean) == (1, None)
    assert stats.training is not None
    assert (stats.training.iteration, stats.training.kl, stats.training.loss, stats.training.learning_rate) == (3, 0.5, None, 0.25)


def test_what_an_older_server_does_not_report_is_unset() -> None:
    """A training iteration had its first thirteen fields at first."""
    older: dict[str, Any] = {
        field.name: 1 for field in pb.TrainingIteration.DESCRIPTOR.fields if field.number <= 13 and field.name != "checkpoint_path"
    }
    training = to_stats(pb.GetStatsResponse(training=pb.TrainingIteration(**older))).training
    assert training is not None
    assert (training.entropy, training.learning_rate) == (1.0, None)

"""What an ExternalEnv in this process must not send is refused at the call, and touches nothing else."""

from __future__ import annotations

import threading
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.common.errors import (
    InvalidInputError,
    ServerOverloadedError,
)
from policyserver.common.spaces import flatten
from policyserver.server.config.serving_config import EpisodesConfig
from policyserver.server.external_env.columns import columns_of, values_of
from tests.server.core_harness import observation
from tests.server.external_env_harness import Served, in_thread, serving_env

BAD = observation(np.nan)


class Unreadable:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("burnt")


def name_of(value: object) -> str:
    """Name a case alike in each process that collects it: without the address of an object."""
    return str(value).split(" at 0x")[0]


@pytest.mark.long
@pytest.mark.parametrize(
    "bad",
    [BAD, observation(101.0), np.zeros(9, np.float32), None, "text", [1, [2]], np.full(10, 1e300), {"x": 1}, Unreadable(), 1j],
    ids=name_of,
)
def test_a_bad_observation_is_told_to_its_caller_and_the_episode_goes_on(served: Served, env: Any, bad: Any) -> None:
    episode = env.start_episode()
    with pytest.raises(InvalidInputError, match="observation"):
        env.get_action(episode, bad)
    env.get_action(episode, observation(0))
    env.log_returns(episode, 1.0, {"kept": True})
    with pytest.raises(InvalidInputError, match="observation") as raised:
        env.log_action(episode, bad, 1)
    assert raised.value.reason == "BAD_OBSERVATION"
    env.log_returns(episode, 2.0)
    env.get_action(episode, observation(1))
    env.end_episode(episode, observation(2))
    (segment,) = served.segments()
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert segment.get_rewards().tolist() == [3.0, 0.0], "the refused call's reward goes with the next"
    assert segment.get_infos() == [{}, {"kept": True}, {}]


@pytest.mark.long
@pytest.mark.parametrize("bad", [42, -1, np.nan, 0.5, "up", [0, 1], Unreadable()], ids=name_of)
def test_an_action_outside_the_space_is_told_to_its_caller_and_the_episode_goes_on(served: Served, env: Any, bad: Any) -> None:
    episode = env.start_episode()
    env.log_action(episode, observation(0), 1)
    env.log_returns(episode, 1.0)
    with pytest.raises(InvalidInputError, match="action") as raised:
        env.log_action(episode, observation(1), bad)
    assert raised.value.reason == "BAD_ACTION"
    env.log_action(episode, observation(1), 2)
    env.end_episode(episode, observation(2))
    (segment,) = served.segments()
    assert segment.get_actions().tolist() == [1, 2]
    assert segment.get_rewards().tolist() == [1.0, 0.0]


@pytest.mark.long
@pytest.mark.parametrize("bad", [np.nan, np.inf, "much", "1", None, np.zeros(2), 10**400], ids=name_of)
def test_a_reward_that_is_no_number_is_told_where_it_is_logged_and_forgotten(served: Served, env: Any, bad: Any) -> None:
    episode = env.start_episode()
    env.get_action(episode, observation(0))
    env.log_returns(episode, np.float32(0.5))
    with pytest.raises(InvalidInputError, match="reward: expected a") as raised:
        env.log_returns(episode, bad)
    assert raised.value.reason == "BAD_REWARD"
    env.log_returns(episode, 1)
    env.get_action(episode, observation(1))
    env.log_returns(episode, np.ones((1, 1)))
    env.end_episode(episode, observation(2))
    (segment,) = served.segments()
    assert segment.get_rewards().tolist() == [1.5, 1.0]


@pytest.mark.long
def test_a_sum_of_rewards_that_no_step_can_carry_is_told_where_it_is_logged(served: Served, env: Any) -> None:
    episode = env.start_episode()
    env.get_action(episode, observation(0))
    env.log_returns(episode, 3e38)
    with pytest.raises(InvalidInputError, match="expected a sum of at most"):
        env.log_returns(episode, 1e38)
    with pytest.raises(InvalidInputError, match="observation"):
        env.get_action(episode, BAD)
    with pytest.raises(InvalidInputError, match=r"sum of at most 3.4e\+38 for a step, received 1e\+38 after 0, and 3e\+38 on its way"):
        env.log_returns(episode, 1e38)
    env.log_returns(episode, -3e38)
    env.end_episode(episode, observation(1))
    (segment,) = served.segments()
    assert segment.get_rewards().tolist() == [0.0]


@pytest.mark.long
def test_a_bad_row_in_a_crowd_touches_no_other(served: Served, env: Any) -> None:
    def drive(number: int) -> int:
        random = np.random.default_rng(number)
        refused = 0
        for _ in range(10):
            episode = env.start_episode()
            for step in range(5):
                if random.random() < 0.3:
                    with pytest.raises(InvalidInputError):
                        env.get_action(episode, BAD) if step % 2 else env.log_action(episode, observation(step), 42)
                    refused += 1
                env.get_action(episode, observation(number, step))
                env.log_returns(episode, 1.0)
            env.end_episode(episode, observation(number, 5))
        return refused

    refused = sum(result() for result in [in_thread(drive, number) for number in range(16)])
    assert refused > 100
    segments = served.segments(800)
    assert len(segments) == 160
    for segment in segments:
        assert segment.get_observations()[:, 1].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert segment.get_rewards().tolist() == [1.0] * 5


@pytest.mark.long
@pytest.mark.parametrize("last", [BAD, None, threading.Lock()], ids=name_of)
def test_a_bad_end_truncates_the_episode_at_its_last_complete_step(
    served: Served, env: Any, caplog: pytest.LogCaptureFixture, last: Any
) -> None:
    episode = env.start_episode()
    for step in range(3):
        env.get_action(episode, observation(step))
        env.log_returns(episode, 1.0)
    env.end_episode(episode, last)
    (segment,) = served.segments()
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert segment.is_truncated
    assert not segment.is_terminated
    assert f"the end of episode {episode} is refused: it ends as truncated" in caplog.text
    with pytest.raises(ValueError, match="already completed"):
        env.get_action(episode, observation())
    assert served.open_episodes == []


def test_the_number_of_open_episodes_is_bounded_and_the_caller_hears_it() -> None:
    with serving_env(episodes=EpisodesConfig(max_open=2)) as served:
        env = served.env
        first, second, third = (env.start_episode() for _ in range(3))
        for episode in (first, second):
            env.get_action(episode, observation())
        with pytest.raises(ServerOverloadedError, match="at most 2 open episodes"):
            env.get_action(third, observation())
        env.end_episode(first, observation(1))
        served.settle()
        env.get_action(third, observation())


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(3, start=5),
        gym.spaces.Box(-1.0, 1.0, (2, 2)),
        gym.spaces.Box(-1.0, 1.0, ()),
        gym.spaces.MultiDiscrete([2, 3]),
        gym.spaces.MultiBinary(3),
        gym.spaces.Dict({"a": gym.spaces.Discrete(2)}),
        gym.spaces.Tuple([gym.spaces.Box(0.0, 1.0, (1,)), gym.spaces.Discrete(2)]),
    ],
    ids=name_of,
)
def test_columns_of_values_give_the_values(space: gym.Space[Any]) -> None:
    values = [space.sample() for _ in range(4)]
    columns, _ = columns_of(space, "action", values)
    for value, again in zip(values, values_of(space, columns), strict=True):
        assert again in space
        assert type(again) is type(value) or isinstance(again, np.generic | np.ndarray)
        for first, second in zip(flatten(space, value), flatten(space, again), strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_column_is_made_of_the_values_that_fit() -> None:
    space = gym.spaces.Dict(
        {"a": gym.spaces.Box(-1.0, 1.0, (2,)), "b": gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.MultiBinary(2)])}
    )
    good = [space.sample() for _ in range(5)]
    together, errors = columns_of(space, "observation", good)
    assert not errors
    for column, *leaves in zip(together, *(flatten(space, value) for value in good), strict=True):
        np.testing.assert_array_equal(column, np.stack(leaves))
        assert column.dtype == leaves[0].dtype
    bad = [{}, {**good[0], "c": 1}, {"a": good[0]["a"], "b": (1,)}, {"a": good[0]["a"], "b": (0.5, good[0]["b"][1])}, Unreadable(), None]
    mixed = [good[0], *bad[:3], good[1], *bad[3:], good[2]]
    some, errors = columns_of(space, "observation", mixed)
    assert set(errors) == {1, 2, 3, 5, 6, 7}
    for column, whole in zip(some, together, strict=True):
        np.testing.assert_array_equal(column, whole[:3])
    assert columns_of(space, "observation", bad)[0] == []
    assert columns_of(space, "observation", []) == ([], {})

"""Greedy episodes with RLlib's own pipelines: what RLlib's env runner does with `explore=False`, also beside episodes that explore."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from policyserver.common.errors import PolicyUnknownError
from tests.server.connector_harness import player_of, state_of, stock_policy
from tests.server.core_harness import ACTION, MODELS, OBSERVATION, observation
from tests.server.policy_player import Move
from tests.server.user_connectors import CenterOnEverythingSeen, DifferenceInTheBatch

LENGTH = 9


class Walk(gym.Env[Any, Any]):
    """Observations that depend on the actions."""

    observation_space, action_space = OBSERVATION, ACTION

    def __init__(self, config: Any = None) -> None:
        self._step = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self._step, self._at = 0, observation(3.0, -2.0)
        return self._at, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        self._at = (self._at * np.float32(0.9) + np.float32(action - 1) * np.cos(np.arange(10) + self._step)).astype(np.float32)
        return self._at, 1.0, self._step == LENGTH, False, {}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*Overriding environment")
@pytest.mark.parametrize("model", ["mlp", "lstm_shared"])
@pytest.mark.parametrize("algorithm", [PPOConfig, DQNConfig])
def test_a_greedy_episode_is_what_rllibs_env_runner_plays_without_exploration(algorithm: Any, model: str) -> None:
    config = (
        algorithm()
        .environment(Walk)
        .env_runners(num_env_runners=0, env_to_module_connector=lambda env, spaces, device: [DifferenceInTheBatch()])
        .rl_module(model_config=DefaultModelConfig(**MODELS[model]))
    )
    runner = SingleAgentEnvRunner(config=config)
    (theirs,) = runner.sample(num_episodes=1, explore=False)
    player = player_of(stock_policy(runner.module, DifferenceInTheBatch()))
    begin, rewards = observation(3.0, -2.0), np.ones(LENGTH)
    environments = {slot: Walk() for slot in range(4)}
    now = {slot: environment.reset()[0] for slot, environment in environments.items()}
    actions: list[int] = []
    for step in range(LENGTH):
        moves = [Move(slot, now[slot], step == 0, 0.0 if step == 0 else 1.0, greedy=slot == 2, training=slot != 2) for slot in environments]
        decided = player.send(*moves)
        actions.append(int(decided.executed[2]))
        now = {slot: environments[slot].step(int(decided.executed[slot]))[0] for slot in environments}
    assert actions == theirs.get_actions().tolist()
    np.testing.assert_array_equal(theirs.get_observations()[0], begin)
    np.testing.assert_array_equal(theirs.get_rewards(), rewards)
    player.send(*(Move(slot, now[slot], end="terminated", reward=1.0, greedy=slot == 2) for slot in environments))
    assert not player.policy._live  # type: ignore[attr-defined]


@pytest.mark.long
def test_exploring_rows_beside_greedy_ones_have_the_columns_that_the_learner_wants() -> None:
    player = player_of(stock_policy(None, DifferenceInTheBatch()))
    decided = player.send(*(Move(slot, observation(slot), new=True, greedy=slot % 2 == 1) for slot in range(6)))
    assert decided.decisions.outputs.keys() == player.policy.layout.outputs.keys()
    alone = player_of(stock_policy(player.policy._net.module, DifferenceInTheBatch())).send(  # type: ignore[attr-defined]
        *(Move(slot, observation(slot), new=True) for slot in range(6))
    )
    for name, column in decided.decisions.outputs.items():
        if name not in ("action_logp",):
            np.testing.assert_allclose(column, alone.decisions.outputs[name], atol=1e-6)
    inputs = alone.decisions.outputs["action_dist_inputs"]
    np.testing.assert_array_equal(decided.executed[1::2], inputs[1::2].argmax(axis=-1))


@pytest.mark.long
def test_a_pass_of_both_kinds_that_fails_changes_nothing() -> None:
    fails = [False]

    class BreaksDown(DifferenceInTheBatch):
        def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
            if fails[0] and len(episodes) == 1:  # the greedy one's call, which is the second
                raise ZeroDivisionError("a user's mistake")
            return batch

        def __deepcopy__(self, memory: Any) -> BreaksDown:
            return self

    player = player_of(stock_policy(None, CenterOnEverythingSeen(), BreaksDown()))
    moves = [Move(slot, observation(slot + 1), new=True, greedy=slot == 1) for slot in range(3)]
    player.send(*moves)
    before = state_of(player.policy)
    fails[0] = True
    on = [Move(slot, observation(slot + 5), reward=1.0, greedy=slot == 1) for slot in range(3)]
    with pytest.raises(ZeroDivisionError):
        player.send(*on)
    assert repr(state_of(player.policy)) == repr(before)
    fails[0] = False
    player.send(*on, kept=[False] * 3)
    assert repr(state_of(player.policy)) == repr(before)


def test_another_policy_than_live_is_refused_and_the_refusal_says_why() -> None:
    policy = stock_policy(None, DifferenceInTheBatch())
    choice = policy.choose("live", "a", greedy=True)
    assert (choice.greedy, choice.trains) == (True, False)
    with pytest.raises(PolicyUnknownError, match="expected 'live', the only one here, for some connector or callback has no array code"):
        policy.choose("live@start", "a", greedy=False)

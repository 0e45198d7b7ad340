"""After a restore the learner learns at the configured rate from its first update on, and not at the checkpoint's."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import COMPONENT_OPTIMIZER

from policyserver.server.daemon.learning_rates import take_configured_rates

SPACES: tuple[gym.Space[Any], gym.Space[Any]] = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2)


@pytest.mark.long
@pytest.mark.parametrize(("rate", "expected"), [(1e-3, 1e-3), ([[0, 1e-3], [1000, 0.0]], 5e-4)], ids=["constant", "schedule"])
def test_a_rate_that_was_changed_before_a_restart_holds_for_the_first_update(rate: object, expected: float) -> None:
    def learner_of(learning_rate: object) -> Any:
        config = PPOConfig().environment(observation_space=SPACES[0], action_space=SPACES[1]).training(lr=learning_rate)
        learner = config.build_learner(spaces={"default_policy": SPACES})
        learner.build()
        return learner

    before, after = learner_of(100.0), learner_of(rate)
    after.set_state({COMPONENT_OPTIMIZER: before.get_state(components=COMPONENT_OPTIMIZER)[COMPONENT_OPTIMIZER]})
    (optimizer,) = after._named_optimizers.values()
    assert optimizer.param_groups[0]["lr"] == 100.0, "as RLlib leaves it"
    take_configured_rates(after, steps_total=500)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)

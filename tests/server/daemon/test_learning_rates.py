"""After a restore the learner learns at the configured rate from its first update on, and not at the checkpoint's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import COMPONENT_OPTIMIZER

from policyserver.server.daemon.roll_back import restore_under
from policyserver.server.processes.training_report import Progress

SPACES: tuple[gym.Space[Any], gym.Space[Any]] = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2)


class OneLearner:
    """RLlib's group of one learner, which is here."""

    is_local = True

    def __init__(self, learner: Any) -> None:
        self._learner = learner

    def __len__(self) -> int:
        return 0

    def foreach_learner(self, call: Any, **arguments: Any) -> list[Any]:
        answer = call(self._learner, **arguments)
        return [SimpleNamespace(ok=True, get=lambda: answer)]


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
    algorithm: Any = SimpleNamespace(learner_group=OneLearner(after), restore_from_path=lambda path: None)  # as above
    checkpoint: Any = SimpleNamespace(path=Path("checkpoint-00000001"), progress=Progress(1, 500, 1, 1))
    restore_under(algorithm, checkpoint, 7)
    assert after._weights_seq_no == 7
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)

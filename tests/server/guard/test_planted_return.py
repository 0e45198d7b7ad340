"""Negated advantages are gone back from within ten updates, whatever the seed: PPO alone, without a clock."""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from policyserver.common.settings import load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.fused_learner import FusedPPOLearner
from policyserver.server.guard.return_judge import ReturnJudge, ReturnVerdict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env-v0"),  # RLlib's own, at its second runner
]

STEPS = 512
EPISODES_AT_ONCE = 16
SETTINGS: dict[str, Any] = {
    "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
    "spaces.action": {"type": "Discrete", "n": 2},
    "algorithm.name": "PPO",
    "algorithm.training": {
        "train_batch_size_per_learner": STEPS,
        "minibatch_size": 64,
        "num_epochs": 10,
        "use_kl_loss": False,
        "lr": 0.003,
        "gamma": 0.0,  # no action has a later effect here
    },
    "algorithm.rl_module": {"model_config": {"fcnet_hiddens": [16], "use_lstm": False}},
}


class Signs(gym.Env[Any, Any]):
    """Ten steps with a point for each action that is 1 where the observation is positive; that of tests/integration/test_guard.py."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, _: Any = None) -> None:
        self._step = 0

    def _observe(self) -> Any:
        self._observation = self.np_random.normal(size=4).astype(np.float32)
        return self._observation

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self._step += 1
        reward = float(int(action) == int(self._observation[0] > 0))
        return self._observe(), reward, False, self._step == 10, {}


class NegatedLearner(FusedPPOLearner):
    """Learn what is worse for what is better, once it is told to."""

    negates = False

    def compute_loss_for_module(self, *, batch: Any, **arguments: Any) -> Any:
        if self.negates:
            batch = {**batch, Columns.ADVANTAGES: -batch[Columns.ADVANTAGES]}
        return super().compute_loss_for_module(batch=batch, **arguments)


class Run:
    """PPO with the settings of tests/integration/test_guard.py, and the judge at each of its updates."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)
        self.config = algorithm_config(load(ServerConfig, None, SETTINGS | {"seed": seed}), SingleAgentEnvRunner)
        self.config.env_config = {}
        self.config.environment(Signs).learners(learner_class=NegatedLearner)
        self.config.env_runners(num_env_runners=0, num_envs_per_env_runner=EPISODES_AT_ONCE)
        self.runner = SingleAgentEnvRunner(config=self.config)
        self.learner = self.config.build_learner(spaces=self.runner.get_spaces())
        guarding = GuardConfig()
        self.judge = ReturnJudge(guarding.return_episodes, guarding.return_false_alarm, guarding.return_drop)
        self.version = 0
        self.means: list[float] = []
        self._saved: Any = None
        self._incumbent: Any = None

    def update(self) -> ReturnVerdict | None:
        """Play with the present policy, judge while the update runs, and go back instead of serving it if it is worse."""
        state = self.learner.get_state(components="rl_module")
        self.runner.set_state({"rl_module": state["rl_module"], "weights_seq_no": self.version})
        episodes = self.runner.sample(num_timesteps=STEPS, random_actions=False)
        returns = [each.get_return() for each in episodes if each.is_done and each.t_started == 0]
        self.means.append(float(np.mean(returns)))
        verdict = self.judge.add([(each, self.version) for each in returns], 0)
        if verdict is ReturnVerdict.ROLL_BACK:
            self.learner.set_state(copy.deepcopy(self._incumbent))
            self.version += 1
            self.judge.begin_again(self.version)
            return verdict
        self.learner.update(episodes=episodes, timesteps={"num_env_steps_sampled_lifetime": 0}, num_epochs=10, minibatch_size=64)
        self.version += 1
        if verdict is ReturnVerdict.SAVE:  # at the safe point, after the update
            self._saved = copy.deepcopy(self.learner.get_state())
            self.judge.begin(self.version)
        elif verdict is ReturnVerdict.REPLACE:
            self._incumbent = self._saved
        return verdict


@pytest.mark.parametrize("seed", range(5))
def test_it_is_gone_back_from_within_ten_updates_and_learns_on(seed: int) -> None:
    run = Run(seed)
    verdicts = []
    while run.judge.incumbent is None or run.judge.incumbent.mean < 7.5:
        verdicts.append(run.update())
        assert len(verdicts) < 60, np.round(run.means, 1).tolist()
    assert ReturnVerdict.ROLL_BACK not in verdicts
    run.learner.negates = True
    planted = run.version
    while run.update() is not ReturnVerdict.ROLL_BACK:
        assert run.version - planted <= 30, np.round(run.means, 1).tolist()
    sys.stdout.write(f"seed {seed}: {run.version - 1 - planted} updates; {np.round(run.means[planted:], 2).tolist()}\n")
    assert run.version - 1 - planted <= 10
    run.learner.negates = False
    assert ReturnVerdict.ROLL_BACK not in [run.update() for _ in range(3)]
    assert run.means[-1] > 6.5, "it learns on from there"

"""RLlib's own SingleAgentEnvRunner in process, the peer of the vector cases: what RLlib reaches when nothing goes over a network.

Its environments do nothing, so that all of the time is RLlib's. One thread computes, as in the serving process.

    python -m benchmarks.speed.peers.rllib_runner mlp 256     # then a line of seconds for each window
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

EPISODE_STEPS = 200
STEPS_PER_SAMPLE = 20  # of each environment


class Trivial(gym.Env[np.ndarray[Any, Any], int]):
    """The benchmark's spaces, and nothing behind them."""

    observation_space = gym.spaces.Box(-100, 100, (10,), np.float32)
    action_space: gym.spaces.Space[Any] = gym.spaces.Discrete(3)

    def __init__(self, config: Any = None) -> None:
        self._observation = np.random.default_rng(0).normal(size=10).astype(np.float32)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return self._observation, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return self._observation, 1.0, self._steps >= EPISODE_STEPS, False, {}


def main(net: str, environments: int) -> None:
    """Sample for as many seconds as each line of standard input says."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    model = DefaultModelConfig(fcnet_hiddens=[256, 256], use_lstm=net == "lstm", lstm_cell_size=256, vf_share_layers=net == "lstm")
    config = (
        PPOConfig().environment(Trivial).env_runners(num_env_runners=0, num_envs_per_env_runner=environments).rl_module(model_config=model)
    )
    runner = SingleAgentEnvRunner(config=config)
    runner.sample(num_timesteps=environments * 5)
    _say({"ready": True})
    for line in sys.stdin:
        seconds, steps = float(line), 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            steps += sum(map(len, runner.sample(num_timesteps=environments * STEPS_PER_SAMPLE)))
        _say({"steps_per_s": steps / (time.perf_counter() - begin)})


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(f"BENCH {json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

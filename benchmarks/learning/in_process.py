"""Learning as RLlib does it by itself, with its own env runner that steps the environment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from benchmarks.learning.cases import ALONE, Case, Outcome
from policyserver.server.config.algorithm import algorithm_config


class WritesReturns(gym.Wrapper[Any, Any, Any, Any]):
    """Append the return of each episode, and how many steps this copy had made by then, to a file.

    RLlib's metrics mean over other episodes than the player does, and once an iteration.
    """

    def __init__(self, env: gym.Env[Any, Any], file: Path) -> None:
        super().__init__(env)
        self._file = file
        self._steps = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._sum = 0.0
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._sum += float(reward)
        self._steps += 1
        if terminated or truncated:
            with self._file.open("a", encoding="ascii") as file:
                file.write(f"{self._sum} {self._steps}\n")
        return observation, reward, terminated, truncated, info


def first_reached(case: Case, file: Path) -> tuple[int | None, float]:
    """Return the steps of all copies when the bar was first reached, None if it was not, and the newest mean return."""
    ended = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    returns = np.array([float(returned) for returned, _ in ended])
    mean = float("-inf")
    for number in range(case.window, len(returns) + 1):
        mean = float(returns[number - case.window : number].mean())
        if mean >= case.bar:
            return case.copies * int(ended[number - 1][1]), mean
    return None, mean


def learn(case: Case, seed: int, folder: Path) -> Outcome:
    """Train until the bar is reached, with the settings of the case; Ray must run with three CPUs or more."""
    file = folder / "returns"
    file.write_text("", encoding="ascii")
    register_env("learning", lambda _: WritesReturns(gym.make(case.environment), file))
    config = algorithm_config(case.server_config(seed), SingleAgentEnvRunner)
    config.env_config = {}
    config.environment("learning")
    # RLlib counts a fragment for each copy of the environment, this server for all episodes together.
    fragment = config.rollout_fragment_length
    fragment = fragment if isinstance(fragment, str) else max(1, fragment // case.copies)
    config.env_runners(num_env_runners=1, num_envs_per_env_runner=case.copies, rollout_fragment_length=fragment)
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=500)
    algorithm = config.build_algo()
    began, steps, mean_return = time.monotonic(), 0, float("-inf")
    reached: int | None = None
    try:
        while steps < case.max_steps and reached is None:
            steps = int(algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"])
            reached, mean_return = first_reached(case, file)
    finally:
        algorithm.stop()
    seconds = time.monotonic() - began
    return Outcome(ALONE, case.name, seed, reached or steps, mean_return, seconds, reached is not None)

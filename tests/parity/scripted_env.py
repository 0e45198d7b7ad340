"""A gymnasium environment that follows a script: whatever is done in it, the same happens."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class ScriptedEnv(gym.Env[Any, Any]):
    """Random observations, rewards and ends, which depend on the seed of the first reset alone.

    Settings: `observation_space`, `action_space`, and `steps`, the least and the most steps of an episode.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space = config["observation_space"]
        self.action_space = config["action_space"]
        self._shortest, self._longest = config["steps"]
        self._episode = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(seed)
            self._seed = seed
            self.observation_space.seed(seed)
        self._episode += 1
        self._step = 0
        self._length = int(self._random.integers(self._shortest, self._longest + 1))
        return self.observation_space.sample(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self._step += 1
        over = self._step == self._length
        terminated = over and bool(self._random.random() < 0.6)
        reward = float(self._random.normal())
        return self.observation_space.sample(), reward, terminated, over and not terminated, self._info()

    def _info(self) -> dict[str, Any]:
        return {"episode": self._seed * 1000 + self._episode, "step": self._step}

"""An environment that a policy for a continuous action learns within a thousand steps: the observation says which action is right."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

REACH = f"{__name__}:Reach-v0"
"""Gymnasium's name of it."""
REACH_SPACES: dict[str, Any] = {
    "spaces.observation": {"type": "Box", "low": -1.0, "high": 1.0, "shape": [1], "dtype": "float32"},
    "spaces.action": {"type": "Box", "low": -1.0, "high": 1.0, "shape": [1], "dtype": "float32"},
}


class Reach(gym.Env[np.ndarray, np.ndarray]):
    """Sixteen steps, each of which costs how far the action is from the observed number: 10.7 in all for actions at random."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin with a number of its own."""
        super().reset(seed=seed, options=options)
        return self._shown(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return the next number and what the action has cost."""
        return_ = -abs(float(action[0]) - float(self._number[0]))
        return self._shown(), return_, False, False, {}

    def _shown(self) -> np.ndarray:
        self._number = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self._number


gym.register("Reach-v0", f"{__name__}:Reach", max_episode_steps=16)

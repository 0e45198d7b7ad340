"""An observation as a Dict: each observer's part by its name, in its own shape, with its own bounds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space

from policyserver.pipelines.market.rules import Rules

Named = dict[str, npt.NDArray[np.float32]]


class ObservationParts:
    """Where each observer's part is in a whole observation."""

    def __init__(self, rules: Rules, symbols: tuple[str, ...]) -> None:
        """Name the parts after their observers' classes; of several of one class by their number, as "Window_2"."""
        names = [type(observer).__name__ for observer in rules.observers]
        seen: Counter[str] = Counter()
        spaces: dict[str, gym.Space[Any]] = {}
        self._places: dict[str, tuple[slice, tuple[int, ...]]] = {}
        first = 0
        for name, observer in zip(names, rules.observers, strict=True):
            seen[name] += 1
            own = name if names.count(name) == 1 else f"{name}_{seen[name]}"
            box = observer.space(symbols)
            size = int(np.prod(box.shape))
            spaces[own] = gym.spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32), dtype=np.float32)
            self._places[own] = slice(first, first + size), box.shape
            first += size
        self.space = gym.spaces.Dict(spaces)
        """That of one observation."""

    def named(self, observations: npt.NDArray[np.float32]) -> Named:
        """Return the parts of whole observations, float32 (..., size), as views of shapes (..., *shape)."""
        return {name: observations[..., place].reshape(observations.shape[:-1] + shape) for name, (place, shape) in self._places.items()}


class NamedObservations(gym.vector.VectorObservationWrapper):
    """A vector environment whose observations are Dicts."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], parts: ObservationParts) -> None:
        """Name the parts of the observations of `env`."""
        super().__init__(env)
        self._parts = parts
        self.single_observation_space = parts.space
        self.observation_space = batch_space(parts.space, env.num_envs)

    def observations(self, observations: Any) -> Any:
        """Return the observations, float32 (n, size), by their parts; the base class takes none but one type for both."""
        return self._parts.named(observations)

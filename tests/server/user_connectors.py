"""Connectors as users write them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from ray.rllib.core.columns import Columns


class ScaleObservations(SingleAgentObservationPreprocessor):  # type: ignore[misc]
    """Writes other observations into the episodes."""

    def preprocess(self, observation: Any, episode: Any) -> Any:
        return (np.asarray(observation) / 50.0).astype(np.float32)


class HalfTheObservation(SingleAgentObservationPreprocessor):  # type: ignore[misc]
    """Writes observations of another shape."""

    def recompute_output_observation_space(self, input_observation_space: Any, input_action_space: Any) -> Any:
        half = input_observation_space.shape[0] // 2
        return gym.spaces.Box(-np.inf, np.inf, (half,), np.float32)

    def preprocess(self, observation: Any, episode: Any) -> Any:
        return observation[: len(observation) // 2]


class ShiftInTheBatch(ConnectorV2):  # type: ignore[misc]
    """Changes what the net sees and leaves the episodes as they are."""

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        for episode in self.single_agent_episode_iterator(episodes):
            self.add_batch_item(batch, Columns.OBS, episode.get_observations(-1) + np.float32(0.25), episode)
        return batch


class DifferenceInTheBatch(ConnectorV2):  # type: ignore[misc]
    """Shows the net how the observation changed since `steps` ago."""

    def __init__(self, *args: Any, steps: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps = steps

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        for episode in self.single_agent_episode_iterator(episodes):
            window = episode.get_observations(slice(-self._steps - 1, None), fill=0.0)
            self.add_batch_item(batch, Columns.OBS, np.asarray(window[-1] - window[0], np.float32), episode)
        return batch


class CuriousReward(ConnectorV2):  # type: ignore[misc]
    """Adds a reward of its own, and says so in the info."""

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        for episode in self.single_agent_episode_iterator(episodes):
            if len(episode) > 0:
                bonus = float(np.abs(episode.get_observations(-1)).mean())
                episode.set_rewards(new_data=episode.get_rewards(-1) + bonus, at_indices=-1)
                episode.infos.data[-1]["bonus"] = bonus
        return batch


class CenterOnEverythingSeen(ConnectorV2):  # type: ignore[misc]
    """Subtracts the mean of all observations so far: it has a state, and the order of the rows counts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sum: Any = 0.0
        self.count = 0

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        for episode in self.single_agent_episode_iterator(episodes):
            observation = episode.get_observations(-1)
            self.sum, self.count = self.sum + observation.astype(np.float64), self.count + 1
            episode.set_observations(new_data=(observation - self.sum / self.count).astype(np.float32), at_indices=-1)
        return batch

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        return {"sum": self.sum, "count": self.count}

    def set_state(self, state: dict[str, Any]) -> None:
        self.sum, self.count = state["sum"], state["count"]

    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        return max(states, key=lambda state: int(state["count"]))


class Faulty(ConnectorV2):  # type: ignore[misc]
    """Does what it is told, once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fault: Any = None

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        fault, self.fault = self.fault, None
        if fault is not None:
            fault(batch, episodes)
        return batch


class NextActionOnOddSteps(ConnectorV2):  # type: ignore[misc]
    """Turns every second action into the next one: a connector of the way out, which looks at episodes and at the items of the batch."""

    def __init__(self, *args: Any, count: int = 3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._count = count

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        # RLlib's runner has put empty episodes in the places of those that ended, so ids don't fit there.
        for episode, items in zip(episodes, batch[Columns.ACTIONS].values(), strict=True):
            if episode.t % 2:
                items[0] = (items[0] + 1) % self._count
        return batch

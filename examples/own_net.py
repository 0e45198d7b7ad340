"""An RLModule, a connector and a callback of one's own, which own_net.toml names by their import paths.

$ PYTHONPATH=examples policy-server serve --config examples/own_net.toml
$ python examples/cartpole_client.py
"""

from __future__ import annotations

import logging
import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

logger = logging.getLogger(__name__)


class Net(TorchRLModule, ValueFunctionAPI):
    """A policy and its values, for PPO or IMPALA, a vector of observations and a Discrete action."""

    def setup(self) -> None:
        """Make the layers; `model_config` is the table [algorithm.rl_module.model_config]."""
        (inputs,) = self.observation_space.shape  # what the connectors make of the client's observations
        width = self.model_config["width"]
        self.action_dist_cls = TorchCategorical
        self.body = torch.nn.Sequential(torch.nn.Linear(inputs, width), torch.nn.Tanh())
        self.actor = torch.nn.Linear(width, int(self.action_space.n))
        self.critic = torch.nn.Linear(width, 1)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.actor(self.body(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return the value of each observation, for the learner."""
        values: torch.Tensor = self.critic(self.body(batch[Columns.OBS]))
        return values.squeeze(-1)


class AddTime(SingleAgentObservationPreprocessor):
    """Add the time in the episode to a vector: what a connector needs the episode so far for."""

    def recompute_output_observation_space(self, input_observation_space: Any, input_action_space: Any) -> gym.Space[Any]:
        """Say what comes out."""
        low, high = input_observation_space.low, input_observation_space.high
        return gym.spaces.Box(np.append(low, 0.0), np.append(high, np.inf), dtype=input_observation_space.dtype.type)

    def preprocess(self, observation: Any, episode: Any) -> Any:
        """Change one observation."""
        return np.append(observation, episode.t / 100).astype(observation.dtype)


def add_time(env: Any, spaces: Any, device: Any) -> AddTime:
    """Make the connector. There is no environment here, so `env` is None; so is `device`."""
    return AddTime()


best = -math.inf


def note_best(*, result: dict[str, Any], **_: Any) -> None:
    """Log each mean return that is higher than all before, after an iteration of training: in the daemon's process."""
    global best
    newest = result["env_runners"].get("episode_return_mean", math.nan)
    if newest > best:
        best = newest
        logger.info("the best mean return so far: %.1f", best)

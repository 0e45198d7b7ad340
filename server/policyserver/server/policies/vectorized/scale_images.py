"""Images of bytes as numbers around 0, for nets whose convolutions can't take bytes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.common.acting.observations import scaled
from policyserver.server.policies.policy import Array, StepRows
from policyserver.server.policies.vectorized.observation_connectors import VectorizedConnector


class ScaleImages(SingleAgentObservationPreprocessor):
    """Rewrite observations of bytes, uint8[...], as float32 numbers from -1 to 1.

    RLlib's torch nets can't convolve bytes, and its own runner leaves the conversion to the environment; the scale is that of its
    `NormalizedImageEnv` wrapper.
    """

    def recompute_output_observation_space(
        self, input_observation_space: gym.Space[Any], input_action_space: gym.Space[Any]
    ) -> gym.spaces.Box:
        """Return the space of the rewritten observations.

        Raises:
            ValueError: The observations are not a Box of uint8.
        """
        if not (isinstance(input_observation_space, gym.spaces.Box) and input_observation_space.dtype == np.uint8):
            raise ValueError(f"ScaleImages: expected a Box of uint8 observations, received {input_observation_space}")
        return gym.spaces.Box(-1.0, 1.0, input_observation_space.shape, np.float32)

    def preprocess(self, observation: Array, episode: SingleAgentEpisode) -> Array:
        """Return one rewritten observation."""
        return scaled(observation)


class VectorizedScale(VectorizedConnector):
    """Do what `ScaleImages` does on whole batches."""

    def write(self, leaves: list[Array], rows: StepRows) -> list[Array]:
        """Return the rewritten observations, float32[n, ...]."""
        (images,) = leaves
        return [scaled(images)]

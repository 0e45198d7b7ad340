"""RLlib's usual connectors by name, for a configuration file: what happens to an observation before the net sees it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import gymnasium as gym
import numpy as np
from annotated_types import Ge

from policyserver.common.settings import Config
from policyserver.common.spaces import leaves

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.connectors.connector_v2 import ConnectorV2


@dataclass(frozen=True)
class ConnectorsConfig(Config):
    """What happens to an observation before the net sees it; other connectors are given by `algorithm.env_runners`."""

    flatten: Literal["auto", "always", "never"] = "auto"
    """Whether observations are made one vector, discrete parts one-hot. `auto`: if RLlib's default nets can't take them as they are."""
    scale_images: Literal["auto", "never"] = "auto"
    """Whether images of bytes are made numbers from -1 to 1, which RLlib's default nets need. `auto`: if the module is not your own."""
    mean_std_filter: bool = False
    """Whether observations are normalized by their running mean and standard deviation, and clipped to 10 of them."""
    num_frames: Annotated[int, Ge(1)] = 1
    """How many of the newest observations the net sees at once; more than 1 is for images of one channel, shape (height, width, 1)."""

    def _check(self) -> None:
        if self.num_frames > 1 and (self.flatten == "always" or self.mean_std_filter):
            raise ValueError("num_frames: expected 1 together with flatten or mean_std_filter, for frames are stacked as they come")


def add_standard_connectors(
    built: AlgorithmConfig, config: ConnectorsConfig, observation_space: gym.Space[Any], *, own_module: bool
) -> None:
    """Set the connectors in an AlgorithmConfig, if the configuration asks for any.

    With `own_module` the RLModule is the user's, which takes any space: then `auto` leaves observations alone.

    Raises:
        ValueError: Observations of this space can't be flattened, or their frames not stacked.
    """
    box = observation_space if isinstance(observation_space, gym.spaces.Box) else None
    floats = box is not None and np.issubdtype(box.dtype, np.floating)
    image = box is not None and len(box.shape) == 3 and (floats or box.dtype == np.uint8)
    vector = box is not None and len(box.shape) == 1 and floats
    pieces = []
    if config.flatten == "always" or (config.flatten == "auto" and not (own_module or image or vector)):
        _check_flattenable(observation_space)
        pieces.append("flatten")
    elif image and not floats and config.scale_images == "auto" and not own_module:
        pieces.append("scale_images")
    if config.mean_std_filter:
        pieces.append("mean_std")
    if config.num_frames > 1:
        if not (box is not None and image and box.shape[-1] == 1):
            raise ValueError(
                f"num_frames: expected 1 unless observations are images of shape (height, width, 1), received {observation_space}"
            )
        built.training(learner_connector=functools.partial(_learner_connectors, config.num_frames))
    if pieces or config.num_frames > 1:
        built.env_runners(env_to_module_connector=functools.partial(_env_to_module_connectors, tuple(pieces), config.num_frames))


def _check_flattenable(space: gym.Space[Any]) -> None:
    """Refuse what RLlib's FlattenObservations fails on: it uses integers as places in a one-hot vector."""
    for leaf in leaves(space, "observation"):
        if isinstance(leaf.space, gym.spaces.Discrete | gym.spaces.MultiDiscrete) and np.any(leaf.space.start):
            raise ValueError(
                f"flatten: expected discrete spaces that count from 0, received {leaf.space} at {leaf.path}; shift them in the client, "
                'or take flatten = "never" and an RLModule of your own'
            )


def _env_to_module_connectors(pieces: tuple[str, ...], num_frames: int, env: Any, spaces: Any, device: Any) -> list[ConnectorV2]:
    from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
    from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule

    from policyserver.server.policies.vectorized.scale_images import ScaleImages

    make: dict[str, Callable[[], ConnectorV2]] = {
        "flatten": FlattenObservations, "scale_images": ScaleImages, "mean_std": MeanStdFilter
    }  # fmt: skip
    made = [make[name]() for name in pieces]
    return [*made, FrameStackingEnvToModule(num_frames=num_frames)] if num_frames > 1 else made


def _learner_connectors(num_frames: int, observation_space: Any, action_space: Any) -> ConnectorV2:
    from ray.rllib.connectors.learner.frame_stacking import FrameStackingLearner

    connector: ConnectorV2 = FrameStackingLearner(num_frames=num_frames)
    return connector

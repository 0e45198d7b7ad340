"""Decides whether array code does exactly what the configured connectors do, or RLlib's own pipelines must run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors import env_to_module as inward
from ray.rllib.connectors import module_to_env as outward
from ray.rllib.connectors.common.flatten_observations import FlattenObservations
from ray.rllib.connectors.common.frame_stacking import FrameStacking
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.utils import force_list

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.spaces import describe, leaves
from policyserver.server.policies.connectors.episode_callbacks import EPISODE_CALLBACKS, is_used
from policyserver.server.policies.vectorized.mean_std_filter import VectorizedMeanStdFilter
from policyserver.server.policies.vectorized.observation_connectors import VectorizedConnector, VectorizedFlatten, VectorizedPreviousAction
from policyserver.server.policies.vectorized.scale_images import ScaleImages, VectorizedScale

_INWARD_DEFAULTS: list[type] = [
    inward.AddObservationsFromEpisodesToBatch,
    inward.AddTimeDimToBatchAndZeroPad,
    inward.AddStatesFromEpisodesToBatch,
    inward.BatchIndividualItems,
    inward.NumpyToTensor,
]
_OUTWARD_DEFAULTS: list[type] = [
    outward.GetActions,
    outward.TensorToNumpy,
    outward.UnBatchToIndividualItems,
    outward.RemoveSingleTsTimeRankFromBatch,
    outward.NormalizeAndClipActions,
    outward.ListifyDataForVectorEnv,
]


class UnusableConnectorError(ValueError):
    """A connector that RLlib itself can't run on the configured spaces."""


@dataclass(frozen=True, slots=True)
class VectorizedPath:
    """Array code that does what the configured pipelines do."""

    connectors: tuple[VectorizedConnector, ...]
    """What rewrites observations before they are recorded, in order."""
    num_frames: int
    """How many of the newest recorded observations the module sees at once."""
    recorded_space: gym.Space[Any]
    """Space of the observations that are recorded."""


def choose(
    config: AlgorithmConfig, env_to_module: ConnectorPipelineV2, module_to_env: ConnectorPipelineV2, form: ActionForm
) -> VectorizedPath | str:
    """Find array code for the configured pipelines, or say what has none.

    Connectors count by their exact classes: a subclass may do anything.

    Returns:
        The array code; or what has none, such as "the connector MyNoise", and therefore runs through RLlib's own pipelines on live
        episodes, at their speed.

    Raises:
        UnusableConnectorError: A connector fails on the configured spaces, in RLlib too.
    """
    added, defaults = env_to_module.connectors[: -len(_INWARD_DEFAULTS)], env_to_module.connectors[-len(_INWARD_DEFAULTS) :]
    is_whole = [type(piece) for piece in defaults] == _INWARD_DEFAULTS
    check(added if is_whole else env_to_module.connectors)
    for name in EPISODE_CALLBACKS:
        if is_used(name, config, force_list(config.callbacks_class)):
            return f"the callback {name}"
    if not is_whole:
        return "an env-to-module pipeline without RLlib's default connectors"
    if [type(piece) for piece in module_to_env.connectors] != _OUTWARD_DEFAULTS:
        others = [type(piece).__name__ for piece in module_to_env.connectors if type(piece) not in _OUTWARD_DEFAULTS]
        return f"the connector {others[0]}" if others else "a module-to-env pipeline other than RLlib's default one"
    connectors: list[VectorizedConnector] = []
    num_frames, recorded_space = 1, env_to_module.observation_space
    for place, piece in enumerate(added):
        if type(piece) is FrameStacking and not piece._multi_agent and not piece._as_learner_connector and place == len(added) - 1:
            num_frames, recorded_space = piece.num_frames, piece.input_observation_space
        elif type(piece) is inward.PrevActionsPrevRewards and FlattenObservations not in map(type, added[place + 1 :]):
            # RLlib writes the action with an axis more than its space says, which only flattening takes away.
            return f"the connector {type(piece).__name__} without FlattenObservations behind it"
        elif (connector := _vectorized(piece, form)) is not None:
            connectors.append(connector)
        else:
            return f"the connector {type(piece).__name__}"
    return VectorizedPath(tuple(connectors), num_frames, recorded_space)


def check(connectors: Sequence[ConnectorV2]) -> None:
    """Refuse connectors that would fail on every observation, in RLlib too.

    Raises:
        UnusableConnectorError: Such a connector.
    """
    filters = 0
    for piece in connectors:
        space = piece.input_observation_space
        if type(piece) is inward.MeanStdFilter and not piece._multi_agent:
            filters += 1
            if not isinstance(space, gym.spaces.Box | gym.spaces.MultiBinary):
                raise UnusableConnectorError(_refusal("MeanStdFilter", "one Box; put a FlattenObservations before it", space))
            if filters > 1:
                raise UnusableConnectorError("MeanStdFilter: expected one in a pipeline, received more, whose states RLlib confuses")
        elif type(piece) is FlattenObservations and not piece._multi_agent:
            if not all(_counts_within_its_size(leaf.space) for leaf in leaves(space)):
                raise UnusableConnectorError(_refusal("FlattenObservations", "Discrete spaces that count from 0 (start=0)", space))
        elif type(piece) is FrameStacking and not piece._multi_agent and len(space.shape) != 3:
            raise UnusableConnectorError(_refusal("FrameStacking", "a Box of three axes, the last of length 1", space))


def _refusal(name: str, expected: str, space: gym.Space[Any]) -> str:
    return f"env_runners.env_to_module_connector: {name}: expected {expected}, received {describe(space)}"


def _counts_within_its_size(space: gym.Space[Any]) -> bool:
    """Tell whether RLlib's one-hot code can take a space's values as indices, from the end if they are negative."""
    if not isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return True
    sizes = np.asarray(space.n if isinstance(space, gym.spaces.Discrete) else space.nvec, np.int64)
    starts = np.asarray(space.start, np.int64)
    return bool(((-sizes <= starts) & (starts <= 0)).all())


def _vectorized(piece: ConnectorV2, form: ActionForm) -> VectorizedConnector | None:
    """Return the array version of a connector, if there is one."""
    if type(piece) is ScaleImages:
        return VectorizedScale()
    if getattr(piece, "_multi_agent", True):
        return None
    if type(piece) is inward.MeanStdFilter:
        return VectorizedMeanStdFilter(piece)
    if type(piece) is FlattenObservations and not piece._as_learner_connector:
        return VectorizedFlatten(piece.input_observation_space, frozenset(piece._keys_to_remove))
    adds_one_step = type(piece) is inward.PrevActionsPrevRewards and piece.n_prev_actions == piece.n_prev_rewards == 1
    if adds_one_step and isinstance(piece.input_action_space, gym.spaces.Discrete):
        return VectorizedPreviousAction(form, piece.input_action_space)
    return None

"""Array code stands in for exactly those pipelines that it does the same as; anything else is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.common.flatten_observations import FlattenObservations as Flatten
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import (
    AddObservationsFromEpisodesToBatch,
    EnvToModulePipeline,
    FlattenObservations,
    MeanStdFilter,
    PrevActionsPrevRewards,
    WriteObservationsToEpisodes,
)
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.connectors.module_to_env import GetActions

from policyserver.common.acting.action_form import ActionForm
from policyserver.server.policies.connectors.connector_choice import UnusableConnectorError, VectorizedPath, choose
from tests.server.core_harness import spaces_of

spaces = gym.spaces
Make = Callable[[], list[ConnectorV2]]

BOX = spaces.Box(-1.0, 1.0, (3,))
NESTED = spaces.Dict({"a": BOX, "b": spaces.Discrete(3)})
FRAME = spaces.Box(0.0, 1.0, (8, 8, 1))
ACTION: spaces.Discrete[np.int64] = spaces.Discrete(2)


class OwnFlatten(Flatten):  # type: ignore[misc]
    """May do anything."""


class OwnFilter(MeanStdFilter):  # type: ignore[misc]
    """May do anything."""


class Untouched(RLlibCallback):  # type: ignore[misc]
    """Nothing that concerns episodes."""

    def on_train_result(self, **kwargs: Any) -> None:
        """Do nothing."""


class Watching(Untouched):
    """Sees every step."""

    def on_episode_step(self, **kwargs: Any) -> None:
        """Do nothing."""


def choice(
    observation_space: gym.Space[Any],
    make: Make | None = None,
    *,
    action_space: gym.Space[Any] = ACTION,
    outward: Make | None = None,
    change: Callable[[AlgorithmConfig], Any] = lambda config: None,
) -> VectorizedPath | str:
    config = PPOConfig()
    if make is not None:
        config.env_runners(env_to_module_connector=lambda env, spaces, device: make())
    if outward is not None:
        config.env_runners(module_to_env_connector=lambda env, spaces: outward())
    change(config)
    known = spaces_of(observation_space, action_space)
    pipelines = config.build_env_to_module_connector(spaces=known), config.build_module_to_env_connector(spaces=known)
    return choose(config, *pipelines, ActionForm(action_space, normalize=True, clip=False))


@pytest.mark.parametrize(
    ("observation_space", "make", "connectors", "shape"),
    [
        (BOX, None, [], (3,)),
        (NESTED, None, [], None),
        (BOX, lambda: [MeanStdFilter()], ["VectorizedMeanStdFilter"], (3,)),
        (spaces.MultiBinary(3), lambda: [MeanStdFilter(clip_by_value=3.0)], ["VectorizedMeanStdFilter"], (3,)),
        (NESTED, lambda: [FlattenObservations()], ["VectorizedFlatten"], (6,)),
        (NESTED, lambda: [FlattenObservations(NESTED, ACTION, keys_to_remove=["a"])], ["VectorizedFlatten"], (3,)),
        (NESTED, lambda: [FlattenObservations(), MeanStdFilter()], ["VectorizedFlatten", "VectorizedMeanStdFilter"], (6,)),
        (BOX, lambda: [MeanStdFilter(), FlattenObservations()], ["VectorizedMeanStdFilter", "VectorizedFlatten"], (3,)),
        (
            NESTED,
            lambda: [PrevActionsPrevRewards(), FlattenObservations(), MeanStdFilter()],
            ["VectorizedPreviousAction", "VectorizedFlatten", "VectorizedMeanStdFilter"],
            (9,),
        ),
    ],
)
def test_what_array_code_does(
    observation_space: gym.Space[Any], make: Make | None, connectors: list[str], shape: tuple[int, ...] | None
) -> None:
    path = choice(observation_space, make)
    assert isinstance(path, VectorizedPath)
    assert [type(connector).__name__ for connector in path.connectors] == connectors
    assert path.num_frames == 1
    assert path.recorded_space.shape == shape


@pytest.mark.parametrize("filtered", [False, True])
def test_frames_are_recorded_one_by_one_and_seen_together(filtered: bool) -> None:
    path = choice(FRAME, lambda: [*([MeanStdFilter()] if filtered else []), FrameStackingEnvToModule(num_frames=4)])
    assert isinstance(path, VectorizedPath)
    assert path.num_frames == 4
    assert path.recorded_space.shape == (8, 8, 1)
    assert len(path.connectors) == filtered


@pytest.mark.parametrize(
    ("observation_space", "make", "named"),
    [
        (BOX, lambda: [OwnFlatten()], "the connector OwnFlatten"),
        (BOX, lambda: [OwnFilter()], "the connector OwnFilter"),
        (BOX, lambda: [MeanStdFilter(), OwnFlatten()], "the connector OwnFlatten"),
        (BOX, lambda: [AddObservationsFromEpisodesToBatch(), WriteObservationsToEpisodes()], "AddObservationsFromEpisodesToBatch"),
        (BOX, lambda: [PrevActionsPrevRewards(n_prev_actions=2), FlattenObservations()], "the connector PrevActionsPrevRewards"),
        (BOX, lambda: [PrevActionsPrevRewards()], "PrevActionsPrevRewards without FlattenObservations behind it"),
        (BOX, lambda: [EnvToModulePipeline(connectors=[])], "the connector EnvToModulePipeline"),
        (FRAME, lambda: [FrameStackingEnvToModule(num_frames=2), MeanStdFilter()], "the connector FrameStacking"),
    ],
)
def test_what_it_does_not_do_is_named(observation_space: gym.Space[Any], make: Make, named: str) -> None:
    reason = choice(observation_space, make)
    assert isinstance(reason, str)
    assert named in reason


def test_pipelines_without_the_defaults_are_rllibs_own_affair() -> None:
    assert choice(
        BOX, lambda: [MeanStdFilter()], change=lambda config: setattr(config, "add_default_connectors_to_env_to_module_pipeline", False)
    ) == ("an env-to-module pipeline without RLlib's default connectors")
    assert choice(BOX, outward=lambda: [OwnFlatten(BOX, ACTION)]) == "the connector OwnFlatten"
    assert "module-to-env" in choice(BOX, outward=lambda: [GetActions()])  # type: ignore[operator]
    assert "module-to-env" in choice(  # type: ignore[operator]
        BOX, change=lambda config: setattr(config, "add_default_connectors_to_module_to_env_pipeline", False)
    )


@pytest.mark.parametrize(
    ("callbacks", "named"),
    [
        ({"callbacks_class": Untouched}, None),
        ({"callbacks_class": [Untouched, RLlibCallback]}, None),
        ({"on_train_result": print, "on_sample_end": print, "on_env_runners_recreated": print}, None),
        ({"callbacks_class": Watching}, "on_episode_step"),
        ({"callbacks_class": [Untouched, Watching]}, "on_episode_step"),
        ({"callbacks_class": lambda: Watching()}, "on_episode_created"),
        ({"on_episode_created": print}, "on_episode_created"),
        ({"on_episode_start": print}, "on_episode_start"),
        ({"on_episode_end": [print]}, "on_episode_end"),
    ],
)
def test_callbacks_about_episodes_need_live_episodes(callbacks: dict[str, Any], named: str | None) -> None:
    found = choice(BOX, change=lambda config: config.callbacks(**callbacks))
    assert isinstance(found, VectorizedPath) if named is None else found == f"the callback {named}"


@pytest.mark.parametrize(
    ("observation_space", "make", "text"),
    [
        (NESTED, lambda: [MeanStdFilter()], "MeanStdFilter: expected one Box; put a FlattenObservations before it"),
        (BOX, lambda: [PrevActionsPrevRewards(), MeanStdFilter()], "MeanStdFilter: expected one Box"),
        (spaces.Discrete(3), lambda: [MeanStdFilter()], "MeanStdFilter: expected one Box"),
        (BOX, lambda: [MeanStdFilter(), FlattenObservations(), MeanStdFilter()], "MeanStdFilter: expected one in a pipeline"),
        (spaces.Box(0, 1, (8, 1)), lambda: [FrameStackingEnvToModule(num_frames=2)], "FrameStacking: expected a Box of three axes"),
    ],
)
def test_what_fails_in_rllib_too_is_refused_at_once(observation_space: gym.Space[Any], make: Make, text: str) -> None:
    with pytest.raises(UnusableConnectorError, match=text):
        choice(observation_space, make)


def test_integers_that_rllib_takes_as_places_beyond_the_end_are_refused() -> None:
    shifted: spaces.Discrete[np.int64] = spaces.Discrete(1000, start=1)
    shifted.seed(0)  # RLlib tries it on samples, of which only the last value fails
    with pytest.raises(UnusableConnectorError, match="start=0"):
        choice(spaces.Tuple([BOX, shifted]), lambda: [FlattenObservations()])

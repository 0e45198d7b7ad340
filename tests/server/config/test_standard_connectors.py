"""Connectors that the configuration asks for are in RLlib's pipelines, scale batches as single images, and are refused where unfit."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.connectors.common.flatten_observations import FlattenObservations as FlattenClass
from ray.rllib.connectors.common.frame_stacking import FrameStacking
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.common.acting.observations import scaled
from policyserver.common.settings import SettingsError, load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.policies.vectorized.scale_images import ScaleImages, VectorizedScale
from policyserver.server.runner.env_runner import ExternalEnvRunner

VECTOR = {"type": "Box", "low": -1.0, "high": 1.0, "shape": [3]}
IMAGE = {"type": "Box", "low": 0, "high": 255, "shape": [8, 8, 1], "dtype": "uint8"}
NESTED = {"type": "Dict", "spaces": {"x": VECTOR, "y": {"type": "Discrete", "n": 4}}}


class OwnModule(TorchRLModule):  # type: ignore[misc]
    """A user's module; it is only named here, never run."""


def build(observation: dict[str, Any], **overrides: Any) -> Any:
    values = {"spaces.observation": observation, **{key.replace("__", "."): value for key, value in overrides.items()}}
    return algorithm_config(load(ServerConfig, None, values), ExternalEnvRunner)


def pieces_of(config: Any) -> list[type]:
    spaces = dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID), (config.observation_space, config.action_space))
    pipeline = config.build_env_to_module_connector(spaces=spaces)
    named = (FlattenClass, ScaleImages, MeanStdFilter, FrameStacking)
    return [type(piece) for piece in pipeline.connectors if type(piece) in named]


@pytest.mark.parametrize(
    ("observation", "settings", "expected"),
    [
        (VECTOR, {}, []),
        (IMAGE, {}, [ScaleImages]),
        (IMAGE, {"connectors__scale_images": "never"}, []),
        ({**IMAGE, "dtype": "float32"}, {}, []),
        ({**VECTOR, "low": 0, "high": 9, "dtype": "uint8"}, {}, [FlattenClass]),
        (NESTED, {}, [FlattenClass]),
        ({"type": "Discrete", "n": 4}, {}, [FlattenClass]),
        (NESTED, {"connectors__flatten": "never"}, []),
        (VECTOR, {"connectors__mean_std_filter": True}, [MeanStdFilter]),
        (NESTED, {"connectors__mean_std_filter": True}, [FlattenClass, MeanStdFilter]),
        (IMAGE, {"connectors__num_frames": 4}, [ScaleImages, FrameStacking]),
        (IMAGE, {"connectors__flatten": "always"}, [FlattenClass]),
        (NESTED, {"algorithm__rl_module": {"module_class": f"python:{__name__}.OwnModule"}}, []),
    ],
)
def test_named_connectors_are_rllibs(observation: dict[str, Any], settings: dict[str, Any], expected: list[type]) -> None:
    assert pieces_of(build(observation, **settings)) == expected


def test_images_are_scaled_alike_one_by_one_and_in_batches() -> None:
    images = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
    images[0, 0, 0, 0], images[1, -1, -1, 0] = 0, 255
    space = gym.spaces.Box(0, 255, (8, 8, 1), np.uint8)
    connector = ScaleImages(space, gym.spaces.Discrete(2))
    episodes = [SingleAgentEpisode(observations=[image], observation_space=space) for image in images]
    connector(rl_module=None, batch={}, episodes=episodes)
    (batch,) = VectorizedScale().write([images], cast(Any, None))
    for episode, row in zip(episodes, batch, strict=True):
        np.testing.assert_array_equal(episode.get_observations(-1), row)
        assert connector.observation_space.contains(row)
    assert (float(scaled(images).min()), float(scaled(images).max())) == (-1.0, 255 / 128 - 1)
    with pytest.raises(ValueError, match="expected a Box of uint8"):
        ScaleImages(gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(2))


def test_stacked_frames_widen_the_nets_space_and_reach_the_learner() -> None:
    config = build(IMAGE, connectors__num_frames=4)
    spaces = dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES), (config.observation_space, config.action_space))
    assert config.build_env_to_module_connector(spaces=spaces).observation_space.shape == (8, 8, 4)
    learner = config.build_learner_connector(input_observation_space=config.observation_space, input_action_space=config.action_space)
    assert any(type(piece) is FrameStacking for piece in learner.connectors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"connectors__num_frames": 4}, "images of shape"),
        ({"connectors__num_frames": 0}, "at least 1"),
        (
            {"spaces__observation": {"type": "Dict", "spaces": {"y": {"type": "Discrete", "n": 3, "start": 5}}}},
            "count from 0, received .*'y'",
        ),
        ({"connectors__num_frames": 2, "connectors__mean_std_filter": True}, "expected 1 together with"),
        ({"algorithm__rl_module": {"module_class": "python:pathlib.Path"}}, "expected an RLModule"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(VECTOR, **settings)


def test_an_own_module_takes_its_own_settings() -> None:
    config = build(NESTED, algorithm__rl_module={"module_class": f"python:{__name__}.OwnModule", "model_config": {"anything": 7}})
    spec = config.rl_module_spec
    assert (spec.module_class, spec.model_config) == (OwnModule, {"anything": 7})

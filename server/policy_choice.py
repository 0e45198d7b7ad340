"""Puts together what decides the actions of a serving env runner, from the algorithm's configuration."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.torch import TorchRLModule

from .action_form import ActionForm
from .array_policy import ArrayPolicy
from .inference import PolicyNet
from .policy import Policy

_MAX_SEQ_LEN = 20  # RLlib's default


def make_policy(
    config: AlgorithmConfig,
    module: TorchRLModule,
    env_to_module: Any,
    module_to_env: Any,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    seed: int | None,
) -> Policy:
    """Make the policy that a serving env runner answers with.

    Args:
        config: The algorithm's configuration.
        module: The RLModule; it is copied.
        env_to_module: The connector pipeline before it.
        module_to_env: The connector pipeline behind it.
        observation_space: What clients send.
        action_space: What clients get.
        seed: Seed of the drawing of actions.

    Raises:
        UnsupportedSpaceError: The action space can't be served.
        UnsupportedModuleError: The module gives neither actions nor a distribution of them.
    """
    for name in ("env_to_module_connector", "module_to_env_connector"):
        if getattr(config, f"_{name}") is not None:
            raise ValueError(f"env_runners.{name}: expected none, for only RLlib's default connectors are served; transform in the client")
    form = ActionForm(action_space, normalize=config.normalize_actions, clip=config.clip_actions)
    net = PolicyNet(module, explore=bool(config.explore))
    return ArrayPolicy(
        net,
        form,
        observation_space,
        action_space,
        lookback=config.episode_lookback_horizon,
        state_every=_state_every(config, module),
        seed=seed,
    )


def _state_every(config: AlgorithmConfig, module: TorchRLModule) -> int:
    """Return the distance of the recurrent states that the learner reads."""
    if getattr(config, "replay_buffer_config", None) is not None:
        return 1  # a replay buffer begins its sequences anywhere
    return int((module.model_config or {}).get("max_seq_len", _MAX_SEQ_LEN))

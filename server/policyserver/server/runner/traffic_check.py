"""Whether episodes can be divided among policies, and shadowed, with the connectors and callbacks that are configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.settings import SettingsError
from policyserver.server.config.serving_config import ServingConfig
from policyserver.server.policies.connectors.connector_choice import choose
from policyserver.server.policies.policy import LIVE_NAME


def check_traffic(config: AlgorithmConfig) -> None:
    """Refuse `traffic` where only the policy that learns can be served; without its environment, whose spaces only its runner knows.

    Raises:
        SettingsError: A connector or a callback about episodes has no array code.
    """
    if config.env is None:
        both = (config.observation_space, config.action_space)
        spaces = {INPUT_ENV_SPACES: both, INPUT_ENV_SINGLE_SPACES: both}
        refuse_idle_traffic(config.copy(copy_frozen=False), config.action_space, spaces)


def refuse_idle_traffic(config: AlgorithmConfig, action_space: gym.Space[Any], spaces: Mapping[str, Any]) -> None:
    """Refuse it likewise, for connectors that get these `spaces`."""
    traffic = ServingConfig.from_env_config(config.env_config).traffic
    setting, received = ("shares", traffic.shares) if traffic.shares else ("shadow", traffic.shadow)
    if not received:
        return
    pipelines = config.build_env_to_module_connector(spaces=spaces), config.build_module_to_env_connector(spaces=spaces)
    form = ActionForm(action_space, normalize=config.normalize_actions, clip=config.clip_actions)
    if isinstance(without := choose(config, *pipelines, form), str):
        raise SettingsError(
            f"traffic.{setting}",
            "",
            f"expected none with {without}, which has no array code, so that only {LIVE_NAME!r} is served; received {received!r}. Leave "
            "either out",
        )

"""A trained policy out of a run folder: its module and its connectors, restored without Ray's processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.core import (
    COMPONENT_ENV_RUNNER,
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES

from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.runner.env_runner import ExternalEnvRunner


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """What a run has learned, as one of its checkpoints has it."""

    config: ServerConfig
    """The run's configuration."""
    built: AlgorithmConfig
    """RLlib's, made of it."""
    checkpoint: Checkpoint
    module: TorchRLModule
    env_to_module: ConnectorPipelineV2
    module_to_env: ConnectorPipelineV2


def new_parts(built: AlgorithmConfig) -> tuple[TorchRLModule, ConnectorPipelineV2, ConnectorPipelineV2]:
    """Make the module of a configuration, and the pipelines before and behind it, as a serving actor does."""
    both = built.observation_space, built.action_space
    spaces: dict[str, Any] = {INPUT_ENV_SPACES: both, INPUT_ENV_SINGLE_SPACES: both}
    env_to_module = built.build_env_to_module_connector(spaces=spaces)
    module_to_env = built.build_module_to_env_connector(spaces=spaces)
    spaces[DEFAULT_MODULE_ID] = env_to_module.observation_space, built.action_space
    module: TorchRLModule = built.get_rl_module_spec(spaces=spaces, inference_only=True).build()
    return module, env_to_module, module_to_env


def restore(config: ServerConfig, checkpoint: Checkpoint) -> TrainedPolicy:
    """Make a run's module and connectors, with the state that a checkpoint has.

    Raises:
        SettingsError: RLlib doesn't take the configuration.
        CheckpointError: The checkpoint doesn't fit it.
    """
    built = algorithm_config(config, ExternalEnvRunner)
    module, env_to_module, module_to_env = new_parts(built)
    load_parts(checkpoint, module, env_to_module, module_to_env)
    return TrainedPolicy(config, built, checkpoint, module, env_to_module, module_to_env)


def load_parts(
    checkpoint: Checkpoint, module: TorchRLModule, env_to_module: ConnectorPipelineV2, module_to_env: ConnectorPipelineV2
) -> None:
    """Give a module and connectors the state that a checkpoint has.

    Raises:
        CheckpointError: The checkpoint doesn't fit them.
    """
    parts = {
        f"{COMPONENT_LEARNER_GROUP}/{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}/{DEFAULT_MODULE_ID}": module,
        f"{COMPONENT_ENV_RUNNER}/{COMPONENT_ENV_TO_MODULE_CONNECTOR}": env_to_module,
        f"{COMPONENT_ENV_RUNNER}/{COMPONENT_MODULE_TO_ENV_CONNECTOR}": module_to_env,
    }
    for name, part in parts.items():
        try:
            part.restore_from_path(str(checkpoint.path / name))
        except Exception as error:  # whatever RLlib raises of files that are whole, but another net's
            raise CheckpointError(f"{checkpoint.path / name}: doesn't fit the configured algorithm and net: {error}") from error

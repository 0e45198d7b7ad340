"""What RLlib is told: the spaces, and the algorithm as tables of the arguments of its AlgorithmConfig's methods."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import gymnasium as gym

from policyserver.common.acting.action_form import ActionForm, UnsupportedSpaceError
from policyserver.common.settings import Config
from policyserver.server.config.algorithm_defaults import DEFAULTS_BY_ALGORITHM
from policyserver.server.config.space_tables import space_from_config


@dataclass(frozen=True)
class SpacesConfig(Config):
    """What an observation and an action are, as tables that `space_from_config` reads."""

    observation: dict[str, Any] = field(
        default_factory=lambda: {"type": "Box", "low": -100.0, "high": 100.0, "shape": [10], "dtype": "float32"}
    )
    """The observation space, e.g. `{type = "Box", low = -100, high = 100, shape = [10], dtype = "float32"}`."""
    action: dict[str, Any] = field(default_factory=lambda: {"type": "Discrete", "n": 3})
    """The action space, e.g. `{type = "Discrete", n = 3}`."""

    def _check(self) -> None:
        space_from_config(self.observation, "observation")
        try:
            ActionForm(space_from_config(self.action, "action"), normalize=True, clip=False)
        except UnsupportedSpaceError as error:
            raise ValueError(f"action: {error}") from error

    @property
    def observation_space(self) -> gym.Space[Any]:
        """The observation space as a Gymnasium object."""
        return space_from_config(self.observation, "observation")

    @property
    def action_space(self) -> gym.Space[Any]:
        """The action space as a Gymnasium object."""
        return space_from_config(self.action, "action")


@dataclass(frozen=True)
class RLlibConfig(Config):
    """The RLlib algorithm: each table is a method of its AlgorithmConfig, each key one of the method's arguments.

    A text "python:package.module.Name" stands for that Python object, for arguments that want a class or a function.
    """

    name: Literal["PPO", "APPO", "IMPALA", "DQN", "SAC"] = "PPO"
    """The algorithm, by RLlib's name."""
    training: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.training`, e.g. `lr`."""
    rl_module: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.rl_module`; its `model_config` takes the fields of RLlib's DefaultModelConfig.

    `module_class = "python:package.module.Class"` is an RLModule of your own instead, whose `model_config` takes any keys.
    """
    learners: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.learners`."""
    env_runners: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.env_runners`; `num_env_runners` is the number of serving actors."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.environment`, spaces apart."""
    fault_tolerance: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.fault_tolerance`."""
    reporting: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.reporting`."""
    checkpointing: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.checkpointing`."""
    framework: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.framework`."""
    resources: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.resources`."""
    callbacks: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.callbacks`, such as `callbacks_class = "python:package.module.Class"`. Callbacks about episodes take
    RLlib's own pipelines, some 50 microseconds a row."""
    debugging: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.debugging`."""
    experimental: dict[str, Any] = field(default_factory=dict)
    """Arguments of `AlgorithmConfig.experimental`."""

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """The tables with keys by their AlgorithmConfig method, including this server's defaults for the algorithm."""
        defaults = DEFAULTS_BY_ALGORITHM.get(self.name, {})
        tables = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "name"}
        return {name: {**defaults.get(name, {}), **table} for name, table in tables.items() if table or name in defaults}

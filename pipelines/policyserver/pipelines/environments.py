"""A pipeline's settings as Gymnasium environments: its prices, rules and forecasts, without a server.

    envs = make_vector_env("pipeline.toml", num_envs=64)
    env = gymnasium.make("policyserver.pipelines.environments:policyserver/Trading-v0", config="pipeline.toml")

`gymnasium.make_vec` with the same name makes the vector environment. `policyserver/NamedTrading-v0` has the observers' parts in a Dict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.settings import SettingsError, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast.block_forecaster import STATISTICS
from policyserver.pipelines.forecast.forecasts import Forecasts
from policyserver.pipelines.forecast_start import start_of
from policyserver.pipelines.market.forecaster import Forecaster
from policyserver.pipelines.market.named_observations import NamedObservations, ObservationParts
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.schemes.scheme import View
from policyserver.pipelines.market.vector_env import TradingVectorEnv
from policyserver.pipelines.run import source_of


def make_named_vector_env(config: PipelineConfig | Path | str | None = None, num_envs: int | None = None) -> NamedObservations:
    """Return the same as `make_vector_env` with observations that are Dicts of the observers' parts; its `env` has the block."""
    envs = make_vector_env(config, num_envs)
    return NamedObservations(envs, ObservationParts(envs.block.rules, envs.slots))


def make_vector_env(config: PipelineConfig | Path | str | None = None, num_envs: int | None = None) -> TradingVectorEnv:
    """Return the episodes of a pipeline as a vector environment.

    Args:
        config: Settings, or a TOML file of them; None: the defaults.
        num_envs: Episodes at a time; None: `episodes.concurrent`.

    Raises:
        SettingsError: A setting is wrong, or the prices can't be made; or the folds of a split are to be played one after another, whose
            turns each environment would count by itself.
    """
    if not isinstance(config, PipelineConfig):
        config = load(PipelineConfig, Path(config) if config else None, {})
    split = config.prices.split
    if config.prices.windows.order == "walk_forward" and split is not None and split.folds > 1:
        expected = f"random or sequential, and prices.split.fold = 0 to {split.folds - 1}, for the environments of each fold"
        raise SettingsError("prices.windows.order", "", f"expected {expected}, received 'walk_forward', which policy-pipeline plays")
    source = source_of(config)
    forecasts = Forecasts(config.regressor, is_recorded=source.is_recorded, start=start_of(config, source))

    def new_forecaster(view: View) -> Forecaster:
        return forecasts.make(view, 0)

    return TradingVectorEnv(source, Rules.of(config.rules), num_envs or config.episodes.concurrent, new_forecaster, STATISTICS)


class TradingEnv(gym.Env[npt.NDArray[np.float32], Any]):
    """One episode at a time of a pipeline's: a `TradingVectorEnv` of a single row."""

    def __init__(self, config: PipelineConfig | Path | str | None = None) -> None:
        """Play the episodes of `config`. Raises as `make_vector_env` does."""
        self.envs = make_vector_env(config, 1)
        """Has the episode in row 0."""
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin the next episode; see `TradingVectorEnv.reset`."""
        begins = seed is not None or self._np_random_seed is None
        observations, infos = self.envs.reset(seed=seed, options=options)
        if begins:
            super().reset(seed=self.envs.np_random_seed)
        return observations[0], infos

    def step(self, action: Any) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Play to the bar at which the next action is due; see `TradingVectorEnv.step`."""
        observations, rewards, terminated, truncated, infos = self.envs.step(np.asarray(action)[None])
        of_row = {name: values[0] for name, values in infos.items()}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), of_row


class NamedTradingEnv(gym.ObservationWrapper[dict[str, npt.NDArray[np.float32]], Any, npt.NDArray[np.float32]]):
    """A `TradingEnv` whose observations are Dicts of the observers' parts."""

    def __init__(self, env: TradingEnv) -> None:
        """Name the parts of the observations of `env`."""
        super().__init__(env)
        self._parts = ObservationParts(env.envs.block.rules, env.envs.slots)
        self.observation_space = self._parts.space

    def observation(self, observation: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Return the observation by its parts."""
        return self._parts.named(observation)


def make_named_env(config: PipelineConfig | Path | str | None = None) -> NamedTradingEnv:
    """Return one episode at a time of a pipeline's, with observations that are Dicts. Raises as `make_vector_env` does."""
    return NamedTradingEnv(TradingEnv(config))


gym.register("policyserver/Trading-v0", entry_point=f"{__name__}:TradingEnv", vector_entry_point=f"{__name__}:make_vector_env")
gym.register(
    "policyserver/NamedTrading-v0", entry_point=f"{__name__}:make_named_env", vector_entry_point=f"{__name__}:make_named_vector_env"
)

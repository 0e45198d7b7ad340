"""RLModules as users write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule


class DictModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]  # their sources are not followed
    """A module for observations of `Dict(position=Box, code=Discrete, flags=MultiBinary)`, taken as they are."""

    def setup(self) -> None:
        parts = self.observation_space.spaces
        self._codes = int(parts["code"].n)
        size = int(np.prod(parts["position"].shape)) + self._codes + int(np.prod(parts["flags"].shape))
        self._body = torch.nn.Sequential(torch.nn.Linear(size, self.model_config["hidden"]), torch.nn.Tanh())
        self._actions = torch.nn.Linear(self.model_config["hidden"], int(self.action_space.n))
        self._value = torch.nn.Linear(self.model_config["hidden"], 1)

    def _embed(self, batch: dict[str, Any]) -> torch.Tensor:
        parts = batch[Columns.OBS]
        code = torch.nn.functional.one_hot(parts["code"].long(), self._codes).float()
        embedded: torch.Tensor = self._body(torch.cat((parts["position"].flatten(1), code, parts["flags"].float()), dim=-1))
        return embedded

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self._actions(self._embed(batch))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        values: torch.Tensor = self._value(self._embed(batch)).squeeze(-1)
        return values


class ByteImageModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """A convolution on bytes, which RLlib's own does not take."""

    def setup(self) -> None:
        channels = self.observation_space.shape[-1]
        convolution = torch.nn.Conv2d(channels, 4, kernel_size=4, stride=2)
        self._body = torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(8), torch.nn.Tanh())
        self._body(torch.zeros(1, *np.roll(self.observation_space.shape, 1)))
        self._actions = torch.nn.Linear(8, int(self.action_space.n))
        self._value = torch.nn.Linear(8, 1)

    def _embed(self, batch: dict[str, Any]) -> torch.Tensor:
        assert batch[Columns.OBS].dtype == torch.uint8
        embedded: torch.Tensor = self._body(batch[Columns.OBS].movedim(-1, 1) / 255.0)
        return embedded

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self._actions(self._embed(batch))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        values: torch.Tensor = self._value(self._embed(batch)).squeeze(-1)
        return values

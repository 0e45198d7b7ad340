"""An RLModule of a user's own, which takes observations of any space as they are and acts in any space that can be served."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian, TorchMultiCategorical
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.spaces import leaves
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy


def grid_gaussian(shape: tuple[int, ...]) -> type:
    """A distribution of actions with more axes than one, which RLlib's default models don't have."""

    class GridGaussian(TorchDiagGaussian):  # type: ignore[misc]
        def sample(self, **kwargs: Any) -> Any:
            return super().sample(**kwargs).reshape(-1, *shape)

        def logp(self, value: Any) -> Any:
            return super().logp(value.reshape(len(value), math.prod(shape)))

    return GridGaussian


class NestedModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """One linear layer on all numbers of an observation."""

    def setup(self) -> None:
        super().setup()
        inputs = 1 + sum(math.prod(leaf.shape) for leaf in leaves(self.observation_space))
        match self.action_space:
            case gym.spaces.Discrete(n=n):
                self.distribution, outputs = TorchCategorical, int(n)
            case gym.spaces.MultiDiscrete(nvec=nvec):
                sizes = [int(size) for size in nvec]
                self.distribution, outputs = TorchMultiCategorical.get_partial_dist_cls(input_lens=sizes), sum(sizes)
            case gym.spaces.Box(shape=shape):
                self.distribution = TorchDiagGaussian if len(shape) < 2 else grid_gaussian(shape)
                outputs = 2 * math.prod(shape)
        self.policy, self.value = torch.nn.Linear(inputs, outputs), torch.nn.Linear(inputs, 1)

    def get_inference_action_dist_cls(self) -> Any:
        return self.distribution

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        return self.value(self._numbers(batch)).squeeze(-1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(self._numbers(batch))}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {**self._forward(batch), Columns.EMBEDDINGS: None}

    @staticmethod
    def _numbers(batch: dict[str, Any]) -> Any:
        found = tree.flatten(batch[Columns.OBS])
        numbers = [torch.tanh(leaf.float() / 100).reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in found]
        return torch.cat([torch.ones(len(found[0]), 1), *numbers], dim=1)  # a space may have no numbers at all


def nested_policy(observation_space: gym.Space[Any], action_space: gym.Space[Any], *, explore: bool = True) -> VectorizedPolicy:
    """A policy of such a module that serves these spaces."""
    torch.manual_seed(0)
    module = NestedModule(observation_space=observation_space, action_space=action_space, model_config={})
    form = ActionForm(action_space, normalize=True, clip=False)
    return VectorizedPolicy(PolicyNet(module, explore=explore), form, observation_space, action_space, seed=0)

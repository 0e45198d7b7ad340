"""RLModules of a user's own, small, but whole. His connector is the one of examples/own_net.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian, TorchMultiCategorical
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ENCODER_OUT, Encoder
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.base import TorchModel
from ray.rllib.core.rl_module.apis import TARGET_NETWORK_ACTION_DIST_INPUTS, TargetNetworkAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

HIDDEN = 16


class LeafNet(torch.nn.Module):
    """Take any observation as it is, nested or not: its leaves side by side, then one layer."""

    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(sum(np.size(leaf) for leaf in tree.flatten(space.sample())), HIDDEN)

    def forward(self, observations: Any) -> torch.Tensor:
        joined = torch.cat([leaf.float().reshape(len(leaf), -1) for leaf in tree.flatten(observations)], dim=-1)
        return torch.tanh(self.layer(joined))


class ActorCritic(TorchRLModule, ValueFunctionAPI, TargetNetworkAPI):
    """A module without anything of RLlib's default ones, for PPO, IMPALA and, as it has target networks, APPO."""

    def setup(self) -> None:
        space = self.action_space
        if isinstance(space, gym.spaces.MultiDiscrete):
            sizes = [int(count) for count in space.nvec]
            self.action_dist_cls = TorchMultiCategorical.get_partial_dist_cls(space=space, input_lens=sizes)
            outputs = sum(sizes)
        else:
            self.action_dist_cls = TorchCategorical if isinstance(space, gym.spaces.Discrete) else TorchDiagGaussian
            outputs = self.action_dist_cls.required_input_dim(space=space, model_config={})
        self.body = LeafNet(self.observation_space)
        self.actor = torch.nn.Linear(HIDDEN, outputs)
        self.critic = torch.nn.Linear(HIDDEN, 1)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.actor(self.body(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        values: torch.Tensor = self.critic(self.body(batch[Columns.OBS]))
        return values.squeeze(-1)

    def make_target_networks(self) -> None:
        self._old_body, self._old_actor = make_target_network(self.body), make_target_network(self.actor)

    def get_target_network_pairs(self) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        return [(self.body, self._old_body), (self.actor, self._old_actor)]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: self._old_actor(self._old_body(batch[Columns.OBS]))}


@dataclass
class LeafEncoderConfig(ModelConfig):
    """How RLlib's catalogs describe an encoder."""

    space: Any = None

    @property
    def output_dims(self) -> tuple[int, ...]:
        return (HIDDEN,)

    def build(self, framework: str = "torch") -> LeafEncoder:
        return LeafEncoder(self)


class LeafEncoder(TorchModel, Encoder):
    """The same net in the form that RLlib's modules of DQN and SAC take."""

    def __init__(self, config: LeafEncoderConfig) -> None:
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        self.net = LeafNet(config.space)

    def _forward(self, inputs: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {ENCODER_OUT: self.net(inputs[Columns.OBS])}


class _LeafCatalog:
    @classmethod
    def _get_encoder_config(cls, observation_space: gym.Space[Any], model_config_dict: Any, action_space: Any = None) -> LeafEncoderConfig:
        return LeafEncoderConfig(space=observation_space)


class QCatalog(_LeafCatalog, DQNCatalog):
    """RLlib's nets of DQN on an encoder of one's own."""


class QNet(DefaultDQNTorchRLModule):
    """DQN asks much of a module (target networks, dueling, epsilon): RLlib's, with an encoder of one's own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "catalog_class": QCatalog})


class SoftCatalog(_LeafCatalog, SACCatalog):
    """RLlib's nets of SAC on an encoder of one's own."""


class SoftActorCritic(DefaultSACTorchRLModule):
    """SAC's module, likewise."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "catalog_class": SoftCatalog})

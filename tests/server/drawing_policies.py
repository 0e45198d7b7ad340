"""Policies that draw from each kind of distribution, or by chance as DQN does."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from policyserver.common.acting.action_form import ActionForm
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from tests.server.core_harness import OBSERVATION, spaces_of

CASES: dict[str, tuple[Any, gym.Space[Any]]] = {
    "discrete": (PPOConfig, gym.spaces.Discrete(5)),
    "multi-discrete": (PPOConfig, gym.spaces.MultiDiscrete([3, 4, 2])),
    "box": (PPOConfig, gym.spaces.Box(-1.0, 1.0, (3,))),
    "squashed box": (SACConfig, gym.spaces.Box(-1.0, 1.0, (3,))),
    "epsilon-greedy": (DQNConfig, gym.spaces.Discrete(5)),
}


def policy_of(name: str, backend: Any, seed: int = 3) -> VectorizedPolicy:
    algorithm, action_space = CASES[name]
    torch.manual_seed(1)
    config = algorithm().environment(observation_space=OBSERVATION, action_space=action_space)
    config.rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
    module = config.get_rl_module_spec(spaces=spaces_of(OBSERVATION, action_space), inference_only=True).build()
    form = ActionForm(action_space, normalize=True, clip=False)
    return VectorizedPolicy(PolicyNet(module, explore=True), form, OBSERVATION, action_space, seed=seed, backend=backend)

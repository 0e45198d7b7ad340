"""How far a policy has moved is the mean KL divergence on a batch's observations, for every kind of distribution that the server serves."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray.rllib.algorithms as rllib
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES

from policyserver.server.guard.policy_change import PROBE_STEPS, PolicyProbe

OBSERVATION = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
DISCRETE: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(4)
MANY = gym.spaces.MultiDiscrete([3, 2])
BOTH = gym.spaces.Dict({"a": DISCRETE, "b": BOX})


def module_of(algorithm: str, action: gym.Space[Any], **model: Any) -> Any:
    spaces = dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID), (OBSERVATION, action))
    config = getattr(rllib, f"{algorithm}Config")().environment(observation_space=OBSERVATION, action_space=action)
    config.rl_module(model_config=DefaultModelConfig(**{"fcnet_hiddens": [8], **model}))
    return config.get_rl_module_spec(spaces=spaces).build()


def batch_of(rows: int = 20) -> dict[str, Any]:
    return {Columns.OBS: torch.rand(rows, 3)}


@torch.no_grad()
def move(module: Any, by: float = 0.5) -> None:
    for parameter in module.parameters():
        parameter += by * torch.randn_like(parameter)


def inputs(module: Any, batch: dict[str, Any]) -> Any:
    return module._forward_inference(dict(batch))[Columns.ACTION_DIST_INPUTS].detach()


def gaussians(before: Any, after: Any, low: float = -np.inf, high: float = np.inf) -> Any:
    """The divergence of diagonal Gaussians from each other, by its formula."""
    (m0, s0), (m1, s1) = (np.split(np.asarray(each, np.float64), 2, axis=-1) for each in (before, after))
    s0, s1 = np.clip(s0, low, high), np.clip(s1, low, high)
    return (s1 - s0 + (np.exp(2 * s0) + (m0 - m1) ** 2) / (2 * np.exp(2 * s1)) - 0.5).sum(-1)


def categoricals(before: Any, after: Any) -> Any:
    p, q = (np.asarray(torch.log_softmax(torch.as_tensor(each).double(), -1)) for each in (before, after))
    return (np.exp(p) * (p - q)).sum(-1)


def multi(before: Any, after: Any) -> Any:
    return sum(categoricals(before[..., part], after[..., part]) for part in (slice(0, 3), slice(3, 5)))


def dict_of_both(before: Any, after: Any) -> Any:
    return categoricals(before[..., :4], after[..., :4]) + gaussians(before[..., 4:], after[..., 4:])


KINDS: dict[str, tuple[str, gym.Space[Any], Any]] = {
    "categorical": ("PPO", DISCRETE, categoricals),
    "multi-categorical": ("PPO", MANY, multi),
    "Gaussian": ("PPO", BOX, gaussians),
    "dict": ("PPO", BOTH, dict_of_both),
    "APPO": ("APPO", DISCRETE, categoricals),
    "squashed Gaussian": ("SAC", BOX, lambda before, after: gaussians(before, after, -20.0, 2.0)),
    "SAC, discrete": ("SAC", DISCRETE, categoricals),
}


@pytest.mark.parametrize(("algorithm", "action", "formula"), KINDS.values(), ids=KINDS)
def test_it_is_the_mean_of_the_formula(algorithm: str, action: gym.Space[Any], formula: Any) -> None:
    module, batch = module_of(algorithm, action), batch_of()
    probe, before = PolicyProbe(module, batch), inputs(module, batch)
    assert probe.kl() == pytest.approx(0.0, abs=1e-7)
    move(module)
    expected = float(np.mean(formula(before, inputs(module, batch))))
    assert expected > 0.01
    assert probe.kl() == pytest.approx(expected, rel=1e-4)
    assert module.training, "as it was"


def test_a_recurrent_net_goes_on_from_its_states_and_padding_does_not_count() -> None:
    module = module_of("PPO", DISCRETE, use_lstm=True, lstm_cell_size=4, max_seq_len=5)
    state = {name: torch.rand(6, *leaf.shape) for name, leaf in module.get_initial_state().items()}
    mask = torch.rand(6, 5) < 0.7
    batch = {Columns.OBS: torch.rand(6, 5, 3), Columns.STATE_IN: state, Columns.LOSS_MASK: mask}
    probe = PolicyProbe(module, batch)
    before = inputs(module, batch)
    move(module)
    expected = categoricals(before, inputs(module, batch))[mask.numpy()].mean()
    assert probe.kl() == pytest.approx(expected, rel=1e-4)


def test_only_so_many_observations_are_asked_about() -> None:
    module, batch = module_of("PPO", DISCRETE), batch_of(5000)
    probe, before = PolicyProbe(module, batch), inputs(module, batch)
    move(module)
    first = slice(0, PROBE_STEPS)
    assert probe.kl() == pytest.approx(categoricals(before[first], inputs(module, batch)[first]).mean(), rel=1e-4)


def test_a_policy_that_is_no_longer_one_is_infinitely_far() -> None:
    module = module_of("PPO", DISCRETE)
    probe = PolicyProbe(module, batch_of())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(3e38)
    assert probe.kl() == math.inf


def test_q_values_are_no_distribution() -> None:
    module = module_of("DQN", DISCRETE)
    probe = PolicyProbe(module, batch_of())
    move(module)
    assert probe.kl() is None

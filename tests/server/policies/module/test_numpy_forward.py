"""The net written out in numpy gives what torch gives, also after new weights, and stands back where it doesn't know a part."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from policyserver.server.policies.module.forward_pass import ForwardPass
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.module.numpy_forward import NumpyForward
from tests.server.core_harness import ACTION, OBSERVATION, spaces_of

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"fcnet_hiddens": [32, 16]},
    "mlp_relu": {"fcnet_hiddens": [32], "fcnet_activation": "relu", "head_fcnet_hiddens": [8]},
    "mlp_without_bias": {"fcnet_hiddens": [32], "fcnet_activation": "linear"},
    "lstm": {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "vf_share_layers": True},
    "lstm_apart": {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "vf_share_layers": False},
}


class OwnModule(DefaultPPOTorchRLModule):  # type: ignore[misc]
    """A user's module: its pass is another one."""

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward(batch, **kwargs)
        return {**out, Columns.ACTION_DIST_INPUTS: out[Columns.ACTION_DIST_INPUTS] * 2.0}


def module_of(model: dict[str, Any], *, config: Any = PPOConfig, action: gym.Space[Any] = ACTION) -> Any:
    built = config().environment(observation_space=OBSERVATION, action_space=action)
    built.rl_module(model_config=DefaultModelConfig(**model))
    return built.get_rl_module_spec(spaces=spaces_of(OBSERVATION, action), inference_only=True).build()


def passes(net: PolicyNet) -> tuple[ForwardPass, ForwardPass]:
    zeros = [np.zeros((1, 10), np.float32)]
    return ForwardPass(net, zeros, OBSERVATION, "numpy"), ForwardPass(net, zeros, OBSERVATION, "torch")


def test_a_standard_deviation_stays_within_rllibs_bounds() -> None:
    net = PolicyNet(module_of({"fcnet_hiddens": [8], "log_std_clip_param": 0.01}, action=BOX), explore=True)
    out = passes(net)[0].run([np.full((4, 10), 9.0, np.float32)], [])[0][Columns.ACTION_DIST_INPUTS]
    assert np.abs(out[:, 2:]).max() == np.float32(0.01)
    assert_alike(net, 4)


def assert_alike(net: PolicyNet, rows: int) -> None:
    random = np.random.default_rng(rows)
    observations = [random.normal(size=(rows, 10)).astype(np.float32)]
    state = [random.normal(size=(rows, *leaf.shape)).astype(np.float32) for leaf in net.initial_state]
    before = tree.map_structure(np.copy, (observations, state))
    ours, theirs = (one.run(observations, state) for one in passes(net))
    assert ours[0].keys() == theirs[0].keys() == {Columns.ACTION_DIST_INPUTS}
    tree.map_structure(lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5), ours, theirs)
    tree.map_structure(np.testing.assert_array_equal, (observations, state), before)


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("action", [ACTION, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("name", MODELS)
def test_numpy_gives_what_torch_gives(name: str, action: gym.Space[Any], rows: int) -> None:
    net = PolicyNet(module_of(MODELS[name], action=action), explore=True)
    assert net.written_out is not None
    assert_alike(net, rows)


@pytest.mark.parametrize("name", ["mlp", "lstm", "lstm_apart"])
def test_new_weights_are_those_of_the_next_pass(name: str) -> None:
    net = PolicyNet(module_of(MODELS[name]), explore=True)
    observation = [np.ones((1, 10), np.float32)]
    state = [leaf[None] for leaf in net.initial_state]
    numpy_pass, _ = passes(net)
    first = numpy_pass.run(observation, state)[0][Columns.ACTION_DIST_INPUTS]
    for version in (1, 2, 3):  # both copies get new ones
        net.load_spare({key: torch.randn_like(value, dtype=torch.float32) for key, value in net.module.state_dict().items()})
        np.testing.assert_array_equal(numpy_pass.run(observation, state)[0][Columns.ACTION_DIST_INPUTS], first)
        net.swap(version)
        assert_alike(net, 5)
        newer = numpy_pass.run(observation, state)[0][Columns.ACTION_DIST_INPUTS]
        assert not np.allclose(newer, first)
        first = newer


@pytest.mark.parametrize("config", [APPOConfig, IMPALAConfig])
def test_the_other_actor_critics_are_written_out_too(config: Any) -> None:
    net = PolicyNet(module_of(MODELS["mlp"], config=config), explore=True)
    assert net.written_out is not None
    assert_alike(net, 4)


def test_what_is_not_known_is_left_to_torch() -> None:
    config = dataclasses.asdict(DefaultModelConfig(fcnet_hiddens=[8]))
    own = OwnModule(observation_space=OBSERVATION, action_space=ACTION, inference_only=True, model_config=config)
    assert NumpyForward.of(own) is None
    assert NumpyForward.of(module_of({"fcnet_hiddens": [8]}, config=DQNConfig)) is None
    assert NumpyForward.of(module_of({"fcnet_hiddens": [8], "fcnet_activation": "elu"})) is None
    assert NumpyForward.of(torch.nn.Linear(2, 2)) is None


def test_a_wrong_formula_would_be_found_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    net = PolicyNet(module_of(MODELS["mlp"]), explore=True)
    right = cast(NumpyForward, net.written_out)
    net.written_out = cast(Any, lambda observations, state: (right(observations, state)[0] + 0.1, []))
    numpy_pass, torch_pass = passes(net)
    observation = [np.ones((1, 10), np.float32)]
    assert "torch it is" in caplog.text
    for ours, theirs in zip(numpy_pass.run(observation, []), torch_pass.run(observation, []), strict=True):
        tree.map_structure(np.testing.assert_array_equal, ours, theirs)

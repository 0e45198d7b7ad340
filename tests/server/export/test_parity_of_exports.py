"""A policy that was written to a file and read without RLlib acts as the server's own code does."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
from ray.rllib.core.columns import Columns

from policyserver.client import LocalPolicy
from policyserver.common.spaces import Array, flatten, leaves
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.export.npz_file import write_npz
from policyserver.server.export.onnx_file import write_onnx
from policyserver.server.export.portable import portable
from policyserver.server.export.trained_policy import TrainedPolicy
from tests.server.export_harness import BOX, DISCRETE, IMAGE, SEED, VECTOR, ServedEpisode, observations, run_config_of, trained

NESTED = {
    "type": "Dict",
    "spaces": {"speed": {"type": "Box", "low": -9.0, "high": 9.0, "shape": [2]}, "gear": {"type": "Discrete", "n": 4}},
}
MULTI = {"type": "MultiDiscrete", "nvec": [3, 2, 4]}
CONVOLUTION = {"conv_filters": [[4, [4, 3], [2, 1]], [8, 3, 2]], "conv_activation": "relu", "head_fcnet_hiddens": [16]}
LSTM = {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8}
POLICIES: dict[str, ServerConfig] = {
    "mlp": run_config_of(net={"fcnet_hiddens": [64, 64]}),
    "mlp, relu, norm": run_config_of(net={"fcnet_hiddens": [16], "fcnet_activation": "relu", "fcnet_use_layernorm": True}),
    "mlp, silu": run_config_of(net={"fcnet_hiddens": [16], "fcnet_activation": "silu", "head_fcnet_hiddens": [8]}),
    "shifted": run_config_of(action={**DISCRETE, "start": 5}),
    "lstm": run_config_of(net={**LSTM, "vf_share_layers": True}),
    "lstm apart": run_config_of(net={**LSTM, "vf_share_layers": False}, action=BOX),
    "convolution": run_config_of(IMAGE, net=CONVOLUTION),
    "convolution, frames": run_config_of(IMAGE, net=CONVOLUTION, connectors__num_frames=3),
    "convolution, lstm": run_config_of(IMAGE, net={**CONVOLUTION, "use_lstm": True, "lstm_cell_size": 8}),
    "filter": run_config_of(connectors__mean_std_filter=True),
    "flattened, filter": run_config_of(NESTED, connectors__mean_std_filter=True),
    "multi-discrete": run_config_of(action=MULTI),
    "box": run_config_of(action=BOX),
    "box, free": run_config_of(action=BOX, net={"fcnet_hiddens": [16], "free_log_std": True, "log_std_clip_param": 0.2}),
    "box, clipped": run_config_of(action=BOX, algorithm__environment={"normalize_actions": False, "clip_actions": True}),
    "appo": run_config_of(name="APPO"),
    "sac": run_config_of(action=BOX, name="SAC"),
    "sac, discrete": run_config_of(name="SAC"),
    "dqn": run_config_of(name="DQN", algorithm__training={"dueling": False}),
    "dqn, dueling": run_config_of(name="DQN", net={"fcnet_hiddens": [16], "head_fcnet_hiddens": [8]}),
}


@functools.cache
def policy_of(name: str) -> TrainedPolicy:
    return trained(POLICIES[name])


@pytest.mark.long
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("explore", [False, True], ids=["greedy", "exploring"])
def test_an_exported_policy_acts_as_the_server_does(name: str, explore: bool, tmp_path: Path) -> None:
    policy = policy_of(name)
    write_npz(portable(policy), tmp_path / "policy.npz")
    local = LocalPolicy.load(tmp_path / "policy.npz", seed=SEED)
    said = set()
    for number in range(2):
        served = ServedEpisode(policy, f"episode-{number}", explore=explore)
        local.start_episode(f"episode-{number}")
        state = local.initial_state(f"episode-{number}")
        for observation in observations(POLICIES[name]):
            expected, outputs = served.ask(observation)
            inputs, _ = local.forward(state, observation)
            if Columns.ACTION_DIST_INPUTS in outputs:
                np.testing.assert_allclose(inputs, outputs[Columns.ACTION_DIST_INPUTS][0], rtol=1e-5, atol=1e-5)
            action = local.act(observation, explore)
            passed, state = local.act_from(state, observation, explore)
            np.testing.assert_allclose(action, passed, rtol=1e-6, atol=1e-6, err_msg="whether the state is kept inside or passed")
            assert_same_action(action, expected, POLICIES[name])
            said.add(str(inputs.tolist()))
    assert len(said) > 1, "expected a policy that says different things"


def assert_same_action(ours: Any, theirs: Any, config: ServerConfig) -> None:
    space = config.spaces.action_space
    assert space.contains(ours), f"{ours!r} of {type(ours)}"
    assert np.asarray(ours).dtype == theirs.dtype
    span = float(np.max(space.high - space.low)) if isinstance(space, gym.spaces.Box) else 1.0
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * span)  # a net's output is scaled to the span, and its rounding is, too


def test_a_policy_says_where_it_comes_from(tmp_path: Path) -> None:
    config = run_config_of(VECTOR, run_folder="runs/somewhere")
    write_npz(portable(trained(config)), tmp_path / "policy.npz")
    policy = LocalPolicy.load(tmp_path / "policy.npz")
    assert policy.observation_space == config.spaces.observation_space
    assert policy.action_space == config.spaces.action_space
    origin = policy.origin
    assert (origin.run, origin.algorithm, origin.checkpoint, origin.weights_seq_no) == ("somewhere", "PPO", 7, 70)


@pytest.mark.long
@pytest.mark.parametrize("name", POLICIES)
def test_an_onnx_graph_says_what_the_server_says(name: str, tmp_path: Path) -> None:
    policy = policy_of(name)
    write_onnx(portable(policy), tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    config = POLICIES[name]
    space, num_frames = config.spaces.observation_space, config.connectors.num_frames
    write_npz(portable(policy), tmp_path / "policy.npz")
    local = LocalPolicy.load(tmp_path / "policy.npz")
    served, local_state = ServedEpisode(policy, "a", explore=True), local.initial_state()
    state = {each.name: np.zeros((1, *each.shape[1:]), np.float32) for each in session.get_inputs() if each.name in ("c", "h")}
    frames = [np.full_like(space.sample(), 128)] * num_frames if num_frames > 1 else []  # scaled, these bytes are 0
    for observation in observations(config):
        _, outputs = served.ask(observation)
        expected, local_state = local.forward(local_state, observation)
        if Columns.ACTION_DIST_INPUTS in outputs:
            expected = outputs[Columns.ACTION_DIST_INPUTS][0]
        parts = flatten(space, observation)
        if frames:
            frames = [*frames[1:], observation]
            parts = [np.concatenate(frames, axis=-1)]
        columns = {leaf.path: part[None] for leaf, part in zip(leaves(space), parts, strict=True)}
        said = dict(zip([each.name for each in session.get_outputs()], session.run(None, {**columns, **state}), strict=True))
        state = {key: said[f"{key}_out"] for key in state}
        np.testing.assert_allclose(said["action_dist_inputs"][0], expected, rtol=1e-5, atol=1e-5)
    props = session.get_modelmeta().custom_metadata_map
    assert (props["algorithm"], props["checkpoint"]) == (config.algorithm.name, "7")


def test_an_onnx_graph_takes_any_number_of_rows(tmp_path: Path) -> None:
    write_onnx(portable(policy_of("flattened, filter")), tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    rows: dict[str, Array] = {"observation['gear']": np.arange(4) % 4, "observation['speed']": np.zeros((4, 2), np.float32)}
    together = session.run(None, rows)[0]
    apart = [session.run(None, {name: column[row : row + 1] for name, column in rows.items()})[0] for row in range(4)]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-5, atol=1e-5)

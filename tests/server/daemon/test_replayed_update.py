"""`policy-server replay-update` learns again from a kept batch: from a checkpoint, or from what the run began with if it has none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from policyserver.common.settings import dump_toml, load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.replayed_update import built_learner
from policyserver.server.guard.findings import BATCH, RefusedUpdate
from policyserver.server.guard.quarantine import Quarantine
from tests.commands import run_here

pytestmark = pytest.mark.long

SETTINGS: dict[str, Any] = {
    "seed": 7,
    "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
    "spaces.action": {"type": "Discrete", "n": 2},
    "algorithm.training": {"train_batch_size_per_learner": 64, "minibatch_size": 32, "num_epochs": 1},
    "algorithm.rl_module": {"model_config": {"fcnet_hiddens": [16], "use_lstm": False}},
}


def batch(rows: int = 64) -> dict[str, Any]:
    """Return what PPO learns from, as the quarantine keeps it."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "obs": random.normal(size=(rows, 4)),
        "actions": random.integers(2, size=rows),
        "action_logp": np.full(rows, math.log(0.5)),
        "action_dist_inputs": np.zeros((rows, 2)),
        "rewards": random.normal(size=rows),
        "advantages": random.normal(size=rows),
        "value_targets": random.normal(size=rows),
        "loss_mask": np.ones(rows, bool),
    }
    return {
        f"{DEFAULT_MODULE_ID}/{name}": column.astype(np.float32) if column.dtype == np.float64 else column
        for name, column in columns.items()
    }


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """A run that has no checkpoint yet."""
    config = load(ServerConfig, None, SETTINGS | {"run_folder": str(tmp_path / "run")})
    config.run_folder.mkdir()
    (config.run_folder / "server.toml").write_text(dump_toml(config), encoding="utf-8")
    return config


@pytest.mark.parametrize("is_spoiled", [True, False])
def test_before_the_first_checkpoint_it_learns_from_what_the_run_began_with(config: ServerConfig, is_spoiled: bool) -> None:
    columns = batch()
    if is_spoiled:
        columns[f"{DEFAULT_MODULE_ID}/rewards"][3] = math.nan
    kept = Quarantine(config.quarantine_folder, 3, 10**8).keep(RefusedUpdate(BATCH, "planted", 1, 1, columns))
    ended = run_here("policy-server", "replay-update", str(kept), "--run-folder", str(config.run_folder))
    assert ended.returncode == 0, ended.stderr
    expected = "refused (batch): default_policy/rewards: 1 of 64" if is_spoiled else "the guard lets this update through"
    assert ended.stdout.startswith(f"from the weights that the run began with, for it has no whole checkpoint yet: {expected}")
    named = run_here("policy-server", "replay-update", str(kept), "--run-folder", str(config.run_folder), "--checkpoint", "1")
    assert named.returncode == 2, "a checkpoint that is named must be there"
    assert "of which the run has none yet, received 1" in named.stderr


@pytest.mark.process
@pytest.mark.usefixtures("private_ray")
@pytest.mark.filterwarnings("ignore")  # RLlib's own
def test_these_are_the_weights_that_a_server_starts_with(config: ServerConfig) -> None:
    built = algorithm_config(config, SingleAgentEnvRunner)
    built.env_config = {}
    algorithm = built.environment("CartPole-v1").env_runners(num_env_runners=0).build_algo()
    try:
        begun = algorithm.learner_group.get_state(components="learner/rl_module")["learner"]["rl_module"][DEFAULT_MODULE_ID]
    finally:
        algorithm.stop()
    replayed = built_learner(config, None).module[DEFAULT_MODULE_ID].get_state()
    assert begun.keys() == replayed.keys()
    for name, weights in begun.items():
        np.testing.assert_array_equal(weights, replayed[name], name)

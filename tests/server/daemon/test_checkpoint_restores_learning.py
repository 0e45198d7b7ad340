"""A fresh algorithm goes on from a checkpoint with the same weights, optimizer state, weights version and counters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from policyserver.common.settings import load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import CheckpointFolder
from policyserver.server.processes.training_report import Progress, training_report

pytestmark = pytest.mark.usefixtures("private_ray")

CONFIG = load(
    ServerConfig,
    None,
    {
        "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
        "spaces.action": {"type": "Discrete", "n": 2},
        "algorithm.training": {"train_batch_size_per_learner": 256, "minibatch_size": 128, "num_epochs": 2},
        "algorithm.rl_module": {"model_config": {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 10}},
    },
)


def build() -> Any:
    """Build what the daemon builds, with RLlib's own env runner on its own environment in place of the serving actor."""
    config = algorithm_config(CONFIG, SingleAgentEnvRunner)
    config.env_config = {}
    config.environment("CartPole-v1").env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    return config.build_algo()


def flat(state: Any) -> dict[str, np.ndarray]:
    """List the arrays of a nested state by their paths."""
    if isinstance(state, dict):
        return {f"{key}/{path}": leaf for key, value in state.items() for path, leaf in flat(value).items()}
    return {"": np.asarray(state)} if isinstance(state, np.ndarray | float | int) else {}


@pytest.mark.filterwarnings("ignore")  # RLlib's own
def test_a_fresh_algorithm_goes_on_from_a_checkpoint_with_the_same_weights_optimizer_and_version(tmp_path: Path) -> None:
    assert ray.is_initialized()
    trained = build()
    progress = Progress()
    for _ in range(3):
        report = training_report(trained.train(), progress, seconds=1.0, learn_seconds=0.5, checkpoint=None)
        assert report is not None
        assert report.steps >= 256
        progress = report.progress
    assert progress.weights_seq_no == progress.iteration == 3
    checkpoints = CheckpointFolder(tmp_path, keep=3, spaces=CONFIG.spaces)
    checkpoints.save(lambda folder: trained.save_to_path(str(folder)), progress)
    expected = trained.learner_group.get_state()["learner"]
    trained.stop()

    found = checkpoints.newest_whole()
    assert found is not None
    assert found.progress == progress
    fresh = build()
    fresh.restore_from_path(str(found.path))
    restored = fresh.learner_group.get_state()["learner"]
    for part in ("rl_module", "optimizer"):
        before, after = flat(expected[part]), flat(restored[part])
        assert before.keys() == after.keys()
        assert len(before) > 4
        for path, array in before.items():
            np.testing.assert_array_equal(array, after[path], err_msg=path)
    assert restored["weights_seq_no"] == 3
    learned = flat(expected["rl_module"]["default_policy"])
    served = flat(fresh.env_runner.get_state()["rl_module"])
    acting = [path for path in learned if not path.startswith("vf.")]  # nobody needs the value head to act, so it is not sent
    assert len(acting) > 4
    for path in acting:
        np.testing.assert_array_equal(served[path], learned[path], err_msg=path)

    report = training_report(fresh.train(), found.progress, seconds=1.0, learn_seconds=0.5, checkpoint=found.path)
    assert report is not None
    assert (report.iteration, report.weights_seq_no, report.learner_updates) == (4, 4, 4)
    assert report.steps_total > progress.steps_total
    fresh.stop()
    checkpoints.close()

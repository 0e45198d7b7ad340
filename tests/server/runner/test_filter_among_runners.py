"""A filter's statistics are those of all rows that any serving instance saw, in every process, and in the checkpoint."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policyserver.client import PolicyClient
from policyserver.common.settings import load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.server.serving_loop_harness import CLIENT

Array = npt.NDArray[Any]

pytestmark = pytest.mark.usefixtures("private_ray")

STEPS = 64
CONFIG = load(
    ServerConfig,
    None,
    {
        "listen.address": "127.0.0.1:0",
        "hand_off.sample_wait_s": 60.0,
        "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [3]},
        "spaces.action": {"type": "Discrete", "n": 2},
        "connectors": {"mean_std_filter": True},
        "algorithm.env_runners": {"num_env_runners": 2},
        "algorithm.training": {"train_batch_size_per_learner": 2 * STEPS, "minibatch_size": STEPS, "num_epochs": 1},
        "algorithm.rl_module": {"model_config": {"fcnet_hiddens": [16]}},
    },
)


def build() -> Any:
    algorithm = algorithm_config(CONFIG, ExternalEnvRunner).build_algo()
    algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.open(), local_env_runner=False)
    return algorithm


def play(address: str, center: float, seed: int) -> Array:
    """Play an episode of `STEPS` steps and return its observations, the last one too."""
    random = np.random.default_rng(seed)
    observations = random.normal(center, 2.0, (STEPS + 1, 3)).astype(np.float32)
    with PolicyClient(address, config=CLIENT) as client:
        episode = client.start_episode()
        for row in observations[:-1]:
            client.get_action(episode, row)
            client.log_returns(episode, 1.0)
        client.end_episode(episode, observations[-1])
    return observations


def train(algorithm: Any, centers: list[float], seed: int) -> list[Array]:
    """Play an episode at every instance and train on them; return what was observed."""
    group = algorithm.env_runner_group
    addresses = [address for (address,) in group.foreach_env_runner(lambda runner: runner.addresses(), local_env_runner=False)]
    seen: list[Array] = []
    threads = [
        threading.Thread(target=lambda place=place: seen.append(play(addresses[place], centers[place], seed + place))) for place in range(2)
    ]
    for thread in threads:
        thread.start()
    result = algorithm.train()
    for thread in threads:
        thread.join(60.0)
    assert result["num_training_step_calls_per_iteration"] == 1
    return seen


def statistics(algorithm: Any) -> list[tuple[int, Array, Array]]:
    """Return count, mean and deviation that the driver's instance has and each of the serving ones, once they took what was sent."""

    def read(runner: Any) -> tuple[int, Array, Array]:
        statistic = runner._env_to_module.connectors[0]._filters[None].running_stats
        return statistic.num_pushes, statistic.mean_array, statistic.std

    found: list[tuple[int, Array, Array]] = algorithm.env_runner_group.foreach_env_runner(read, local_env_runner=True)
    return found


def check(algorithm: Any, seen: list[Array]) -> None:
    rows = np.concatenate(seen).astype(np.float64)
    known = statistics(algorithm)
    assert len(known) == 3
    for count, mean, deviation in known:
        assert count == len(rows)
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(deviation, rows.std(axis=0, ddof=1), rtol=1e-6)


@pytest.mark.slow  # the short form is in test_connector_states
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # RLlib's own
def test_all_instances_and_the_checkpoint_know_all_rows(tmp_path: Path) -> None:
    algorithm = build()
    seen: list[Array] = []
    for iteration in range(3):
        seen += train(algorithm, [100.0, 120.0 - 100.0 * iteration], seed=10 * iteration)
        check(algorithm, seen)
    algorithm.save_to_path(str(tmp_path / "saved"))
    train(algorithm, [-500.0, -500.0], seed=77)
    algorithm.restore_from_path(str(tmp_path / "saved"))
    check(algorithm, seen)
    algorithm.stop()

    fresh = build()
    fresh.restore_from_path(str(tmp_path / "saved"))
    check(fresh, seen)
    seen += train(fresh, [90.0, 110.0], seed=99)
    check(fresh, seen)
    fresh.stop()

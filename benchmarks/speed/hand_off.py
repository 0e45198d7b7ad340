"""From finished episodes to the learner's input: how fast a serving actor's `sample()` brings steps into the learner's process.

Episodes of 50 steps are played over gRPC until the hand-off holds a batch; then the time is taken from the call of `sample()` on the Ray
actor to the list of `SingleAgentEpisode`s in this process, which is what RLlib's learner begins with.

    python -m benchmarks.speed.hand_off '{"use_lstm": false}' 10
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import ray

from benchmarks.speed.loads.real_time import REAL_TIME
from policyserver.client import PolicyClient
from policyserver.common.settings import load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.ray_start import RayProcess
from policyserver.server.runner.env_runner import ExternalEnvRunner

EPISODE_STEPS, EPISODES_PER_CALL, BATCH_EPISODES = 50, 400, 800


def measure(model_config: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Fill and empty the hand-off for some time; of each emptying its steps and its seconds."""
    batch_steps = EPISODE_STEPS * BATCH_EPISODES
    tables = {
        "listen.address": "127.0.0.1:0",
        "hand_off.capacity_steps": 2 * batch_steps,
        "algorithm.rl_module": {"model_config": model_config},
        "algorithm.env_runners": {"num_env_runners": 1},
        "algorithm.training": {"train_batch_size_per_learner": batch_steps},
    }
    process = RayProcess()
    process.start(num_cpus=2)
    try:
        config = algorithm_config(load(ServerConfig, None, tables), ExternalEnvRunner)
        runner = ray.remote(ExternalEnvRunner).remote(config=config, worker_index=1, num_workers=1)
        ray.get(runner.open.remote())
        (address,) = ray.get(runner.addresses.remote())
        taken: list[tuple[int, float]] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until or len(taken) < 3:
            _play(address)
            began = time.perf_counter()
            episodes = ray.get(runner.sample.remote(num_timesteps=batch_steps))
            taken.append((sum(map(len, episodes)), time.perf_counter() - began))
        ray.get(runner.stop.remote())
    finally:
        process.stop()
    rates = [steps / spent_s for steps, spent_s in taken[1:]]  # the first has no pages yet
    milliseconds = [1e3 * spent_s for _, spent_s in taken[1:]]
    return {
        "steps_per_s": statistics.median(rates),
        "p50_ms": statistics.median(milliseconds),
        "p99_ms": max(milliseconds),
        "max_ms": max(milliseconds),
        "calls": len(rates),
        "steps": taken[-1][0],
    }


def _play(address: str) -> None:
    rewards = np.ones(EPISODES_PER_CALL)
    rows = np.random.default_rng(0).normal(size=(EPISODES_PER_CALL, 10)).astype(np.float32)
    with PolicyClient(address, config=REAL_TIME) as client:
        for _ in range(BATCH_EPISODES // EPISODES_PER_CALL):
            ids = client.start_episodes(EPISODES_PER_CALL)
            for _ in range(EPISODE_STEPS):
                client.get_actions(ids, rows)
                client.log_returns_batch(ids, rewards)
            client.end_episodes(ids, rows)


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(measure(json.loads(sys.argv[1]), float(sys.argv[2]))) + "\n")

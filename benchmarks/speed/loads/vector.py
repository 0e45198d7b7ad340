"""One caller that steps many episodes with each call."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.speed.loads.figures import observations, summary, warm_up_s
from benchmarks.speed.loads.real_time import REAL_TIME
from policyserver.client import PolicyClient


def vector(address: str, *, episodes: int, seconds: float, episode_steps: int, training: bool) -> dict[str, Any]:
    """Step many episodes with each call of one thread."""
    rewards = np.ones(episodes)
    latencies: list[int] = []
    total = 0
    begin = time.perf_counter_ns() + int(warm_up_s(seconds) * 1e9)
    end = begin + int(seconds * 1e9)
    with PolicyClient(address, config=REAL_TIME) as client:
        rows = observations(client, episodes, 0)
        while time.perf_counter_ns() < end:
            ids = client.start_episodes(episodes, training_enabled=training)
            for _ in range(episode_steps):
                asked = time.perf_counter_ns()
                client.get_actions(ids, rows)
                if begin <= asked < end:
                    latencies.append(time.perf_counter_ns() - asked)
                client.log_returns_batch(ids, rewards)
                total += episodes
            client.end_episodes(ids, rows)
    return summary(np.array(latencies), len(latencies) * episodes / seconds) | {"actions_total": total}

"""The load for the old server: threads that each step an episode through a PolicyClient of Ray 2.9.3, remote inference.

Runs in the environment that `make bench-peers` builds, so it imports nothing of this project.

    python policy_server_input_clients.py PORT THREADS     # then a line of seconds for each window
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np
from ray.rllib.env.policy_client import PolicyClient

EPISODE_STEPS = 200
WARM_UP_S = 2.0


def measure(port: int, callers: int, seconds: float) -> dict[str, Any]:
    """Return throughput and latency of one window; calls count that end in it."""
    latencies: list[list[float]] = [[] for _ in range(callers)]
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds

    def caller(number: int) -> None:
        client = PolicyClient(f"http://127.0.0.1:{port}", inference_mode="remote")
        rows = np.random.default_rng(number).standard_normal((256, 10)).astype(np.float32)
        step = 0
        while time.perf_counter() < end:
            episode = client.start_episode()
            for _ in range(EPISODE_STEPS):
                asked = time.perf_counter()
                client.get_action(episode, rows[step % 256])
                answered = time.perf_counter()
                if begin <= answered < end:
                    latencies[number].append(answered - asked)
                client.log_returns(episode, 1.0)
                step += 1
                if answered >= end:
                    break
            client.end_episode(episode, rows[0])

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = np.array([latency for part in latencies for latency in part]) * 1e3
    p50, p99, longest = np.percentile(taken, [50, 99, 100]) if len(taken) else (float("nan"),) * 3
    return {"steps_per_s": len(taken) / seconds, "p50_ms": p50, "p99_ms": p99, "max_ms": longest, "calls": len(taken)}


def say(found: dict[str, Any]) -> None:
    """Write a line for the benchmark."""
    sys.stdout.write(f"BENCH {json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    say({"ready": True})
    for line in sys.stdin:
        say(measure(int(sys.argv[1]), int(sys.argv[2]), float(line)))

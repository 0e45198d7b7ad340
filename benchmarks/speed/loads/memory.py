"""What episodes cost the serving process in memory: while they are open and idle, and once they are over."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psutil

from benchmarks.speed.loads.figures import observations, summary
from benchmarks.speed.loads.real_time import REAL_TIME
from policyserver.client import PolicyClient

ROWS_PER_CALL = 500
MORE_STEPS = 20


def open_idle(address: str, *, server_pid: int, episodes: int) -> dict[str, Any]:
    """Open many episodes, one step each, and leave them alone; then step each some more.

    `bytes_per_episode` is what the serving process holds more for each open episode with one stored step, `bytes_per_step` what each
    further step adds to it. Episodes that were played and ended before have filled what every server holds.
    """
    latencies: list[int] = []
    with PolicyClient(address, config=REAL_TIME) as client:
        rows = observations(client, ROWS_PER_CALL, 0)
        first = client.start_episodes(ROWS_PER_CALL)
        client.get_actions(first, rows)
        client.end_episodes(first, rows)
        before = _resident_bytes(server_pid)
        ids = client.start_episodes(episodes)
        chunks = [ids[begin : begin + ROWS_PER_CALL] for begin in range(0, episodes, ROWS_PER_CALL)]

        def step_all() -> None:
            for chunk in chunks:
                asked = time.perf_counter_ns()
                client.get_actions(chunk, rows[: len(chunk)])
                latencies.append(time.perf_counter_ns() - asked)

        step_all()
        opened = client.stats().episodes_open
        idle = _resident_bytes(server_pid)
        for _ in range(MORE_STEPS):
            client.log_returns_batch(ids, np.ones(episodes))
            step_all()
        stepped = _resident_bytes(server_pid)
        for chunk in chunks:
            client.end_episodes(chunk, rows[: len(chunk)])
    actions = episodes * (1 + MORE_STEPS)
    return summary(np.array(latencies), actions / (sum(latencies) / 1e9)) | {
        "actions_total": actions,
        "episodes_open": opened,
        "bytes_per_episode": (idle - before) / episodes,
        "bytes_per_step": (stepped - idle) / episodes / MORE_STEPS,
    }


def finish_many(address: str, *, server_pid: int, episodes: int, episode_steps: int, every: int) -> dict[str, Any]:
    """Begin, step and end many short episodes, and read the serving process's memory whenever another `every` of them are over.

    `growth_mb_per_100000` is taken from the first reading to the last: what the first `every` leave are pools that every server fills.
    """
    latencies: list[int] = []
    memory: list[list[float]] = []
    rewards = np.ones(ROWS_PER_CALL)
    with PolicyClient(address, config=REAL_TIME) as client:
        rows = observations(client, ROWS_PER_CALL, 0)
        before = client.stats().episodes_open
        for finished in range(ROWS_PER_CALL, episodes + 1, ROWS_PER_CALL):
            ids = client.start_episodes(ROWS_PER_CALL)
            for _ in range(episode_steps):
                asked = time.perf_counter_ns()
                client.get_actions(ids, rows)
                latencies.append(time.perf_counter_ns() - asked)
                client.log_returns_batch(ids, rewards)
            client.end_episodes(ids, rows)
            if finished % every == 0:
                memory.append([finished, _resident_bytes(server_pid) / 1e6])
        leaked = client.stats().episodes_open - before
    if len(memory) < 2:
        raise ValueError(f"episodes: expected at least {2 * every}, twice `every`, so that growth shows, received {episodes}")
    (first, from_mb), (last, to_mb) = memory[0], memory[-1]
    actions = len(latencies) * ROWS_PER_CALL
    return summary(np.array(latencies), actions / (sum(latencies) / 1e9)) | {
        "actions_total": actions,
        "episodes_finished": last,
        "episodes_leaked": leaked,
        "growth_mb_per_100000": (to_mb - from_mb) / (last - first) * 100_000,
        "memory_by_episodes_mb": memory,
    }


def _resident_bytes(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss)

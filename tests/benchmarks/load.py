"""Load generators: each runs in a process of its own, apart from the server, and writes one JSON object.

    python -m tests.benchmarks.load LOAD ADDRESS '{"seconds": 10, ...}'

Latency is taken around the client's call, every call of the measured window counts, and none before it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from client import PolicyClient

Observations = npt.NDArray[np.float32]
Actions = npt.NDArray[np.int64]

WARM_UP_S = 2.0
KNOWN_OBSERVATIONS = 64
RETURNS_REMEMBERED = 256  # the server's return_mean is over the newest so many episodes


def observations(client: PolicyClient, rows: int, seed: int, scale: float = 1.0) -> Observations:
    """Return random observations of the space that the server tells, float32[rows, *shape], inside its bounds."""
    space = client.server_info().observation_space
    assert isinstance(space, gymnasium.spaces.Box), f"expected a server with a Box of observations, it has {space}"
    drawn = np.random.default_rng(seed).normal(scale=scale, size=(rows, *space.shape))
    return np.clip(drawn, space.low, space.high).astype(np.float32)


def threads(address: str, *, callers: int, seconds: float, episode_steps: int, training: bool) -> dict[str, Any]:
    """Step one episode per thread, every thread blocking in `get_action` of the one client they share."""
    latencies: list[list[int]] = [[] for _ in range(callers)]
    totals = [0] * callers
    failures: list[BaseException] = []
    begin = time.perf_counter_ns() + int(WARM_UP_S * 1e9)
    end = begin + int(seconds * 1e9)

    def caller(client: PolicyClient, number: int) -> None:
        rows = observations(client, 256, number)
        mine = latencies[number]
        step = 0
        try:
            while True:
                episode = client.start_episode(training_enabled=training)
                for _ in range(episode_steps):
                    asked = time.perf_counter_ns()
                    if asked >= end:
                        client.end_episode(episode, rows[0], truncated=True)
                        return
                    client.get_action(episode, rows[step % 256])
                    if asked >= begin:
                        mine.append(time.perf_counter_ns() - asked)
                    client.log_returns(episode, 1.0)
                    step += 1
                    totals[number] = step
                client.end_episode(episode, rows[0])
        except BaseException as error:
            failures.append(error)

    with PolicyClient(address) as client:
        running = [threading.Thread(target=caller, args=(client, number)) for number in range(callers)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    if failures:
        raise failures[0]
    measured = np.array([latency for part in latencies for latency in part])
    return _summary(measured, len(measured) / seconds) | {"actions_total": sum(totals)}


def vector(address: str, *, episodes: int, seconds: float, episode_steps: int, training: bool) -> dict[str, Any]:
    """Step many episodes with each call of one thread."""
    rewards = np.ones(episodes)
    latencies: list[int] = []
    total = 0
    begin = time.perf_counter_ns() + int(WARM_UP_S * 1e9)
    end = begin + int(seconds * 1e9)
    with PolicyClient(address) as client:
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
    return _summary(np.array(latencies), len(latencies) * episodes / seconds) | {"actions_total": total}


def open_many(address: str, *, episodes: int, rounds: int, rows_per_call: int, training: bool, known_actions: bool) -> dict[str, Any]:
    """Hold many episodes open, step them in random order through one client, and look for anything mixed up.

    By content: with a policy that doesn't explore, every observation has one known action; and every episode has its own reward, so that
    the server's mean return of each group that ends is known to the last digit (the server keeps it for episodes that are trained on).
    """
    random = np.random.default_rng(0)
    rewards = random.permutation(episodes) / 1024  # exact in binary: sums have no rounding to hide behind
    latencies: list[int] = []
    stepping_s = 0.0
    actions_wrong = returns_wrong = 0
    with PolicyClient(address) as client:
        rows = observations(client, episodes, 1, scale=30.0)  # far from the origin, where the actions of an untrained net differ
        kinds = np.arange(episodes) % (KNOWN_OBSERVATIONS if known_actions else episodes)
        known = _actions_one_by_one(client, rows[:KNOWN_OBSERVATIONS]) if known_actions else None
        before = client.stats()
        ids = np.array(client.start_episodes(episodes, training_enabled=training))
        for _ in range(rounds):
            for chunk in _chunks(random.permutation(episodes), rows_per_call):
                asked = time.perf_counter_ns()
                actions = client.get_actions(ids[chunk].tolist(), rows[kinds[chunk]])
                latencies.append(time.perf_counter_ns() - asked)
                client.log_returns_batch(ids[chunk].tolist(), rewards[chunk])
                stepping_s += (time.perf_counter_ns() - asked) / 1e9
                if known is not None:
                    actions_wrong += int(np.count_nonzero(np.asarray(actions) != known[kinds[chunk]]))
        opened = client.stats().episodes_open - before.episodes_open
        for chunk in _chunks(random.permutation(episodes), RETURNS_REMEMBERED):
            client.end_episodes(ids[chunk].tolist(), rows[chunk])
            if training and len(chunk) == RETURNS_REMEMBERED:
                returns_wrong += client.stats().return_mean != np.mean(rewards[chunk]) * rounds
        after = client.stats()
    found = {
        "actions_total": episodes * rounds,
        "episodes_open": opened,
        "episodes_leaked": after.episodes_open - before.episodes_open,
        "reward_sum_off_by": after.reward_sum - before.reward_sum - float(rewards.sum()) * rounds,
    }
    checked = ({"actions_mixed_up": actions_wrong} if known_actions else {}) | (
        {"returns_mixed_up": int(returns_wrong)} if training else {}
    )
    return _summary(np.array(latencies), episodes * rounds / stepping_s) | found | checked


def _actions_one_by_one(client: PolicyClient, rows: Observations) -> Actions:
    """Ask for each observation's action in an episode of its own, one call at a time."""
    actions = []
    for row in rows:
        episode = client.start_episode(training_enabled=False)
        actions.append(client.get_action(episode, row))
        client.end_episode(episode, row)
    return np.array(actions)


def _chunks(order: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    return np.split(order, range(size, len(order), size))


def _summary(latencies_ns: npt.NDArray[np.int64], steps_per_s: float) -> dict[str, Any]:
    p50, p99, longest = np.percentile(latencies_ns, [50, 99, 100]) / 1e6
    return {"steps_per_s": steps_per_s, "p50_ms": p50, "p99_ms": p99, "max_ms": longest, "calls": len(latencies_ns)}


LOADS: dict[str, Callable[..., dict[str, Any]]] = {"threads": threads, "vector": vector, "open_many": open_many}

if __name__ == "__main__":
    name, address, options = sys.argv[1:]
    sys.stdout.write(json.dumps(LOADS[name](address, **json.loads(options))))

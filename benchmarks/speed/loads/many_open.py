"""Many episodes open at once through one client, and whether anything was mixed up among them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.speed.loads.figures import Observations, observations, summary
from benchmarks.speed.loads.real_time import REAL_TIME
from policyserver.client import PolicyClient

Actions = npt.NDArray[np.int64]

KNOWN_OBSERVATIONS = 64
RETURNS_REMEMBERED = 256  # the server's return_mean is over the newest so many episodes


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
    with PolicyClient(address, config=REAL_TIME) as client:
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
    return summary(np.array(latencies), episodes * rounds / stepping_s) | found | checked


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

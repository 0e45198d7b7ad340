"""The client's side of a cell: several episodes at once, on random observations."""

from __future__ import annotations

import copy
import threading
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.client import ClientConfig, PolicyClient

EPISODES_AT_ONCE = 4
WAIT_S = 60.0
"""Longest wait for an answer: it is withheld while the learner is behind, and that may have to wait for a process of RLlib's to start."""
LONGEST_EPISODE_STEPS = 12
LOGGED_EVERY = 5
"""Every so many steps the client acts by itself, and reports that."""
TRUNCATED_EVERY = 3
"""Every so many episodes one is cut instead of ended."""


class Players:
    """Threads that play episodes against a server until they are told to stop, or one fails."""

    def __init__(self, address: str, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self._spaces = observation_space, action_space
        self._client = PolicyClient(address, config=ClientConfig(connect_timeout_s=WAIT_S, action_timeout_s=WAIT_S))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._errors: list[Exception] = []
        self.failed = threading.Event()
        """Set when a player has failed; `check` says why."""
        self.counts = dict.fromkeys(("actions", "actions_logged", "episodes_terminated", "episodes_truncated"), 0)
        self.versions: set[int] = set()
        """Policy versions that answered."""
        self._threads = [threading.Thread(target=self._play, args=(number,), daemon=True) for number in range(EPISODES_AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def have_seen(self, updates: int) -> bool:
        """Tell whether steps and ends of every kind were played, and so many policy versions followed the first one."""
        with self._lock:
            return all(self.counts.values()) and max(self.versions) - min(self.versions) >= updates

    def check(self) -> None:
        """Raise the first error of a player, if there is one."""
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """End the episodes and join the threads; by then the server may be gone."""
        self._stopping.set()
        self._client.close()
        for thread in self._threads:
            thread.join(30.0)
            if thread.is_alive():
                raise RuntimeError("a call of the client did not end when it was closed")

    def _play(self, number: int) -> None:
        random = np.random.default_rng(number)
        observation_space, action_space = copy.deepcopy(self._spaces)
        observation_space.seed(number)
        action_space.seed(number)
        episode = number
        try:
            while not self._stopping.is_set():
                self._play_one(random, observation_space, action_space, truncated=episode % TRUNCATED_EVERY == 0)
                episode += 1
        except Exception as error:
            if not self._stopping.is_set():
                self._errors.append(error)
                self.failed.set()

    def _play_one(self, random: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any], *, truncated: bool) -> None:
        client = self._client
        episode = client.start_episode()
        for _ in range(random.integers(1, LONGEST_EPISODE_STEPS + 1)):
            observation = observation_space.sample()
            logged = bool(random.integers(LOGGED_EVERY) == 0)
            if logged:
                client.log_action(episode, observation, action_space.sample())
            else:
                action = client.get_action(episode, observation)
                if not action_space.contains(action):
                    raise AssertionError(f"expected an action in {action_space}, received {action!r}")
            self._count("actions_logged" if logged else "actions")
            client.log_returns(episode, random.normal())
        client.end_episode(episode, observation_space.sample(), truncated=truncated)
        self._count("episodes_truncated" if truncated else "episodes_terminated")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
            self.versions.add(self._client.weights_seq_no)

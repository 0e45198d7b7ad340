"""Play copies of an environment from a thread each, as a program does whose environments know nothing of each other."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np

from benchmarks.learning.playing import Played, Playing
from policyserver.client import PolicyClient


class ThreadPlayer:
    """Plays each copy with `get_action`, one episode after another, until one of the limits is reached."""

    def __init__(self, client: PolicyClient, environment: str, playing: Playing) -> None:
        self._client = client
        self._environment = environment
        self._playing = playing
        self._newest: deque[float] = deque(maxlen=playing.window)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._began = time.monotonic()
        self.played = Played()

    def play(self) -> Played:
        """Play; the episodes open at the end are left to the server."""
        with ThreadPoolExecutor(self._playing.copies) as pool:
            for copy in [pool.submit(self._play_copy, number) for number in range(self._playing.copies)]:
                copy.result()
        return self.played

    def _play_copy(self, number: int) -> None:
        try:
            environment = gym.make(self._environment)
            seed: int | None = self._playing.seed + number
            while not self._done.is_set():
                self._play_episode(environment, seed)
                seed = None
            environment.close()  # type: ignore[no-untyped-call]
        finally:
            self._done.set()  # a copy that fails ends the others

    def _play_episode(self, environment: gym.Env[np.ndarray, int], seed: int | None) -> None:
        observation, _ = environment.reset(seed=seed)
        episode, returned, terminated, truncated = self._client.start_episode(), 0.0, False, False
        while not (terminated or truncated):
            if self._done.is_set():
                return
            action = self._client.get_action(episode, observation)
            observation, reward, terminated, truncated, _ = environment.step(action)
            self._client.log_returns(episode, reward)
            returned += float(reward)
            with self._lock:
                self.played.steps += 1
        self._client.end_episode(episode, observation, truncated=truncated and not terminated)
        with self._lock:
            self._note(returned)

    def _note(self, returned: float) -> None:
        playing, played = self._playing, self.played
        if self._done.is_set():
            return
        self._newest.append(returned)
        played.episodes += 1
        played.best_return = max(played.best_return, returned)
        played.mean_return = float(np.mean(self._newest))
        played.policy_version = self._client.weights_seq_no
        played.seconds = time.monotonic() - self._began
        if playing.is_over(played, len(self._newest)):
            self._done.set()

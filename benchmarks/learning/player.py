"""Play a Gymnasium environment against a policy server, in a process of its own, as an application would: with the client package alone.

python -m benchmarks.learning.player ADDRESS ENVIRONMENT '{"copies": 8, "seed": 0, "window": 50, "stop_return": 150, "max_steps": 100000}'

Writes one JSON object to standard output when it is done.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.learning.playing import Played, Playing
from benchmarks.learning.thread_player import ThreadPlayer
from policyserver.client import ClientConfig, PolicyClient


class Player:
    """Steps some copies of an environment together."""

    def __init__(self, client: PolicyClient, environment: str, playing: Playing) -> None:
        self._client = client
        self._playing = playing
        self._environments = [gym.make(environment) for _ in range(playing.copies)]
        self._observations = [env.reset(seed=playing.seed + number)[0] for number, env in enumerate(self._environments)]
        self._ids = client.start_episodes(playing.copies)
        self._returns = np.zeros(playing.copies)
        self._newest: deque[float] = deque(maxlen=playing.window)
        self._versions: set[int] = set()
        self.played = Played()

    def play(self) -> Played:
        """Play until one of the limits is reached; the episodes open then are left to the server."""
        began = time.monotonic()
        while not self._playing.is_over(self.played, len(self._newest)):
            self._step()
            self.played.seconds = time.monotonic() - began
            time.sleep(max(0.0, self._playing.step_seconds))
        for environment in self._environments:
            environment.close()  # type: ignore[no-untyped-call]
        return self.played

    def _step(self) -> None:
        actions = self._client.get_actions(self._ids, np.stack(self._observations))
        self._versions.add(self._client.weights_seq_no)
        rewards = np.empty(len(self._ids))
        ended, truncations = [], []
        for number, environment in enumerate(self._environments):
            self._observations[number], reward, terminated, truncated, _ = environment.step(actions[number])
            rewards[number] = float(reward)
            if terminated or truncated:
                ended.append(number)
                truncations.append(truncated and not terminated)
        self._returns += rewards
        self._client.log_returns_batch(self._ids, rewards)
        self.played.steps += len(rewards)
        self.played.policy_version, self.played.policy_versions = self._client.weights_seq_no, len(self._versions)
        if ended:
            self._end(ended, truncations)

    def _end(self, ended: list[int], truncations: list[bool]) -> None:
        last = np.stack([self._observations[number] for number in ended])
        self._client.end_episodes([self._ids[number] for number in ended], last, truncations)
        for number, episode in zip(ended, self._client.start_episodes(len(ended)), strict=True):
            self._ids[number] = episode
            self._observations[number] = self._environments[number].reset()[0]
            self._newest.append(float(self._returns[number]))
            self.played.best_return = max(self.played.best_return, self._newest[-1])
            self._returns[number] = 0.0
        self.played.episodes += len(ended)
        self.played.mean_return = float(np.mean(self._newest))


def play(address: str, environment: str, playing: Playing) -> Played:
    """Play with a client of our own, and with the serving runner at that address alone."""
    with PolicyClient(address, config=ClientConfig(spread_episodes=False)) as client:
        player = ThreadPlayer if playing.threads else Player
        return player(client, environment, playing).play()


def main(arguments: list[str]) -> None:
    """Play as the command line says."""
    address, environment, options = arguments
    given: dict[str, Any] = json.loads(options)
    json.dump(asdict(play(address, environment, Playing(**given))), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])

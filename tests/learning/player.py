"""Play a Gymnasium environment against a policy server, in a process of its own, as an application would: with the client package alone.

python -m tests.learning.player ADDRESS ENVIRONMENT '{"copies": 8, "seed": 0, "window": 50, "stop_return": 150, "max_steps": 100000}'

Writes one JSON object to standard output when it is done.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from client import ClientConfig, PolicyClient


@dataclass(frozen=True)
class Playing:
    """How long to play, and with how many copies of the environment at a time."""

    copies: int = 8
    """Episodes open at once, stepped together with one `get_actions`."""
    seed: int = 0
    """Seed of the copies."""
    window: int = 50
    """Newest episodes that the mean return is taken over."""
    stop_return: float = float("inf")
    """Mean return at which to stop, once `window` episodes have ended."""
    stop_episode_return: float = float("inf")
    """Return of a single episode at which to stop."""
    max_steps: int = 1_000_000
    """Steps after which to stop, whatever was reached."""
    max_episodes: int = 1_000_000
    """Episodes after which to stop."""
    max_seconds: float = 3600.0
    """Seconds after which to stop."""
    step_seconds: float = 0.0
    """Least length of a step of all copies, for an environment that runs in real time."""


@dataclass
class Played:
    """What came of it."""

    steps: int = 0
    """Environment steps of all copies."""
    episodes: int = 0
    """Episodes that ended."""
    seconds: float = 0.0
    """From the first step to the last."""
    mean_return: float = float("nan")
    """Mean return of the newest `window` episodes."""
    best_return: float = float("-inf")
    """Best return of a single episode."""
    policy_version: int = 0
    """Version that gave the newest action."""
    policy_versions: int = 0
    """Different versions that gave actions."""


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
        while not self._is_done():
            self._step()
            self.played.seconds = time.monotonic() - began
            time.sleep(max(0.0, self._playing.step_seconds))
        for environment in self._environments:
            environment.close()  # type: ignore[no-untyped-call]
        return self.played

    def _is_done(self) -> bool:
        playing, played = self._playing, self.played
        return (
            (len(self._newest) == playing.window and played.mean_return >= playing.stop_return)
            or played.best_return >= playing.stop_episode_return
            or played.steps >= playing.max_steps
            or played.episodes >= playing.max_episodes
            or played.seconds >= playing.max_seconds
        )

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
        return Player(client, environment, playing).play()


def main(arguments: list[str]) -> None:
    """Play as the command line says."""
    address, environment, options = arguments
    given: dict[str, Any] = json.loads(options)
    json.dump(asdict(play(address, environment, Playing(**given))), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])

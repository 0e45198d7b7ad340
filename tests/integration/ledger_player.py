"""Plays single episodes on threads, with a ledger of its own: what a server acknowledged, to compare with what it recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.client import PolicyClient
from policyserver.monitoring.store.reader import StoreReader

STEPS = 25
"""Of each episode."""
_PACE_S = 0.01
"""Between two steps: one that plays as fast as it can takes the processors from what is tested, the start of an actor above all."""

Ledger = dict[str, tuple[int, float]]
"""Acknowledged steps and rewards, by episode."""


class Player:
    """Plays episodes one after another on a thread."""

    def __init__(self, client: PolicyClient, number: int, policy: str = "") -> None:
        self._client = client
        self._random = np.random.default_rng(number)
        self._policy = policy
        self.ledger: Ledger = {}
        self.failure: BaseException | None = None
        self.over = threading.Event()
        self.longest_s = 0.0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self.over.is_set():
                self._episode()
        except BaseException as error:
            self.failure = error

    def _episode(self) -> None:
        episode = self._client.start_episode(policy=self._policy)
        total = 0.0
        for _ in range(STEPS):
            began = time.monotonic()
            self._client.get_action(episode, self._observation())
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            reward = float(self._random.integers(1, 4))
            self._client.log_returns(episode, reward)
            total += reward
            time.sleep(_PACE_S)
        self._client.end_episode(episode, self._observation())
        self.ledger[episode] = STEPS, total

    def _observation(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return self._random.normal(size=10).astype(np.float32)


def finish(players: Sequence[Player], timeout_s: float = 150.0) -> Ledger:
    """Have all end with their episodes, and return what they were acknowledged together."""
    for player in players:
        player.over.set()
    for player in players:
        player.thread.join(timeout_s)
    assert [player.failure for player in players] == [None] * len(players)
    return {episode: told for player in players for episode, told in player.ledger.items()}


def newest(run_folder: Path, measurement: str) -> list[dict[str, Any]]:
    """Return the newest points that a server recorded of a measurement, the newest first."""
    reader = StoreReader(run_folder / "store.sqlite")
    try:
        return list(reader.newest(measurement, "run", limit=1_000_000))
    finally:
        reader.close()


def recorded(run_folder: Path) -> tuple[Ledger, dict[str, Any]]:
    """Return what a server recorded of each episode, and its newest training iteration."""
    episodes = {row["episode"]: (row["length"], row["return"]) for row in newest(run_folder, "episode")}
    return episodes, newest(run_folder, "train")[0]

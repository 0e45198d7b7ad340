"""Play some episodes together until standard input ends, whatever becomes of the server, in a process of its own.

python -m tests.integration.episodes_player ADDRESS EPISODES

Observations are random and rewards 0. An episode that was lost is replaced by a new one; any other error ends the process. Writes one JSON
object to standard output.
"""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress

import numpy as np

from policyserver.client import BatchError, EpisodeLostError, PolicyClient

STEPS = 20


class Episodes:
    """Some episodes that are stepped together."""

    def __init__(self, client: PolicyClient, count: int) -> None:
        self._client = client
        self._random = np.random.default_rng(count)
        self.ids = client.start_episodes(count)
        self.steps = self.lost = 0

    def step(self, reward: float = 0.0) -> int:
        """Ask for all actions and log a reward for each. Returns the number of episodes that were lost, now replaced by new ones."""
        missing: list[int] = []
        try:
            self._client.get_actions(self.ids, self.observations())
        except BatchError as error:
            for each in error.errors.values():
                if not isinstance(each, EpisodeLostError):
                    raise
            missing = list(error.errors)
        there = [episode for row, episode in enumerate(self.ids) if row not in missing]
        with suppress(BatchError):  # one that is lost by now has its error at the next step
            self._client.log_returns_batch(there, [reward] * len(there))
        for row, episode in zip(missing, self._client.start_episodes(len(missing)), strict=True):
            self.ids[row] = episode
        self.steps += len(there)
        self.lost += len(missing)
        return len(missing)

    def end(self) -> None:
        """End all and begin as many anew."""
        ended = 0
        try:
            self._client.end_episodes(self.ids, self.observations())
        except BatchError as error:
            ended = sum(isinstance(each, EpisodeLostError) for each in error.errors.values())
            if ended < len(error.errors):
                raise
        self.lost += ended
        self.ids = self._client.start_episodes(len(self.ids))

    def observations(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Draw an observation for each."""
        return self._random.normal(size=(len(self.ids), 10)).astype(np.float32)


def main(arguments: list[str]) -> None:
    """Play as the command line says."""
    address, count = arguments
    over = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=watch, daemon=True).start()
    with PolicyClient(address) as client:
        episodes = Episodes(client, int(count))
        while not over.is_set():
            for _ in range(STEPS):
                episodes.step()
            episodes.end()
    json.dump({"steps": episodes.steps, "lost": episodes.lost}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])

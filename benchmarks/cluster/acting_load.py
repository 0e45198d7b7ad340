"""Asks for actions as fast as it can, by turns of one serving actor and of all, with the same callers and episodes.

    python -m benchmarks.cluster.acting_load ADDRESS CALLERS EPISODES_EACH PAIRS WINDOW_S OUTPUT

Each of CALLERS threads has EPISODES_EACH episodes and asks for all of their actions with each call. OUTPUT gets a JSON object for each
window, on a line of its own: how many actors, from when to when, and what it did. The first pair of windows warms up and is left out.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.cluster.open_episodes import TLS
from policyserver.client import ClientConfig, PolicyClient

NUMBERS = 10


@dataclass(frozen=True)
class Played:
    """A window."""

    is_spread: bool
    """Whether the episodes are spread over all actors; else one has all."""
    began_s: float
    ended_s: float
    actions: int
    p50_ms: float
    p99_ms: float
    client_cpu_s: float


class Callers:
    """Threads with episodes of one client, which play for some seconds each time they are asked to."""

    def __init__(self, address: str, callers: int, episodes_each: int, *, spread: bool) -> None:
        """Open the episodes."""
        config = ClientConfig(tls_ca_file=TLS / "certificate", token_file=TLS / "token", spread_episodes=spread, waits_for_learner=False)
        self._is_spread = spread
        self._client = PolicyClient(address, config=config)
        self._ids = [self._client.start_episodes(episodes_each) for _ in range(callers)]
        self._observations = np.random.default_rng(0).standard_normal((episodes_each, NUMBERS)).astype(np.float32)
        self._rewards = np.ones(episodes_each)

    def play(self, seconds: float) -> Played:
        """Play with all threads at once."""
        latencies: list[float] = []
        cpu_s, began_s = _cpu_s(), time.time()
        threads = [threading.Thread(target=self._ask, args=(ids, began_s + seconds, latencies)) for ids in self._ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        p50_ms, p99_ms = np.percentile(latencies, [50, 99]) * 1e3
        actions = len(latencies) * len(self._rewards)
        return Played(self._is_spread, began_s, time.time(), actions, float(p50_ms), float(p99_ms), _cpu_s() - cpu_s)

    def _ask(self, ids: list[str], until_s: float, latencies: list[float]) -> None:
        while time.time() < until_s:
            asked_s = time.perf_counter()
            self._client.get_actions(ids, self._observations)
            latencies.append(time.perf_counter() - asked_s)
            self._client.log_returns_batch(ids, self._rewards)

    def close(self) -> None:
        """Leave."""
        self._client.close()


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def main(address: str, callers: int, episodes_each: int, pairs: int, window_s: float, output: Path) -> None:
    """Play the windows."""
    one, spread = (Callers(address, callers, episodes_each, spread=spread) for spread in (False, True))
    with output.open("w", encoding="utf-8") as out:
        for pair in range(pairs + 1):
            turns = (one, spread) if pair % 2 else (spread, one)
            windows = [side.play(window_s) for side in turns]
            out.writelines(json.dumps(asdict(window)) + "\n" for window in windows if pair)
            out.flush()
    one.close()
    spread.close()


if __name__ == "__main__":
    _, _address, *_numbers, _window_s, _output = sys.argv
    _callers, _episodes_each, _pairs = map(int, _numbers)
    main(_address, _callers, _episodes_each, _pairs, float(_window_s), Path(_output))

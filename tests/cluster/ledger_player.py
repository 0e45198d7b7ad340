"""Plays episodes and keeps a ledger of their steps: python ledger_player.py ADDRESS EPISODES OUTPUT STEPS_A_SECOND TIMEOUT_S [alone].

A step is complete once the row after its action is answered. A row that got no answer before its episode was lost may have been applied:
it is in doubt. Ten times a second OUTPUT gets one JSON object more, on a line of its own. At SIGTERM all episodes are ended; the last line
says "over".
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.client import BatchError, ClientConfig, PolicyClient, PolicyServerError
from policyserver.common.figures import known

STEPS = 25
TLS = Path("/tmp/tls")
_EACH_S = 0.1


class Ledger:
    """Counts what one client was answered."""

    def __init__(self, client: PolicyClient, count: int, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._random = np.random.default_rng(count)
        shape = client.connect().observation_space.shape
        assert shape is not None
        self._shape = shape
        self.completed = self.in_doubt = self.stale = self.started = self.ended = 0
        self.stale_runners: set[str] = set()
        self.errors: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.longest_s, self._newest_s = 0.0, time.monotonic()
        self._open: dict[str, int] = {}
        """Answered rows of each open episode."""
        self._count = count

    def play(self) -> None:
        """Have so many episodes open, and take a step in each."""
        try:
            if missing := self._count - len(self._open):
                self._open.update(dict.fromkeys(self._client.start_episodes(missing), 0))
            self._ask(list(self._open))
            self.end([episode for episode, rows in self._open.items() if rows >= STEPS])
        except PolicyServerError as error:
            self._note(error)
            time.sleep(0.05)

    def end(self, episodes: list[str]) -> None:
        """End episodes; those that no row was answered of are forgotten."""
        ended = [episode for episode in episodes if self._open[episode] > 0]
        failed: dict[int, PolicyServerError] = {}
        try:
            self._client.end_episodes(ended, self._observations(len(ended)))
        except BatchError as error:
            failed = dict(error.errors)
        self._lose(ended, failed)
        self.completed += len(ended) - len(failed)
        self.ended += len(ended) - len(failed)
        for episode in episodes:
            self._open.pop(episode, None)

    def end_all(self) -> None:
        """End what is open."""
        self.end(list(self._open))

    def line(self) -> dict[str, Any]:
        """Say how it is, and how the serving actors are."""
        stats = {}
        with suppress(PolicyServerError):
            answers = self._client.stats_by_endpoint()
            stats = {runner: known(each) for runner, each in answers.items()}
            trained = [each.training.steps_total for each in answers.values() if each.training]
            stats["trained"] = {"steps": max(trained, default=0)}
        return {
            "completed": self.completed, "in_doubt": self.in_doubt, "stale": self.stale, "stale_now": list(self._client.stale_runners),
            "started": self.started, "ended": self.ended, "errors": self.errors, "refusals": self.refusals, "longest_s": self.longest_s,
            "stats": stats, "version": self._client.weights_seq_no, "lost": self._client.counters().episodes_lost,
        }  # fmt: skip

    def _ask(self, episodes: list[str]) -> None:
        failed: dict[int, PolicyServerError] = {}
        try:
            self._client.get_actions(episodes, self._observations(len(episodes)), timeout_s=self._timeout_s)
        except BatchError as error:
            failed = dict(error.errors)
        self._lose(episodes, failed)
        self.stale += int(self._client.answered_stale().sum())
        answered = [episode for row, episode in enumerate(episodes) if row not in failed]
        if answered:
            now_s = time.monotonic()
            self.longest_s, self._newest_s = max(self.longest_s, now_s - self._newest_s), now_s
        for episode in answered:
            self.completed += self._open[episode] > 0
            self.started += self._open[episode] == 0
            self._open[episode] += 1
        with suppress(BatchError):
            self._client.log_returns_batch(answered, np.ones(len(answered)))

    def _lose(self, episodes: list[str], failed: dict[int, PolicyServerError]) -> None:
        for row, error in failed.items():
            self._note(error)
            self.in_doubt += self._open.pop(episodes[row], 0) > 0

    def _note(self, error: PolicyServerError) -> None:
        self.errors[type(error).__name__] += 1
        self.refusals[error.reason] += 1

    def _observations(self, count: int) -> Any:
        return self._random.standard_normal((count, *self._shape)).astype(np.float32)


def main(address: str, count: int, output: str, steps_s: float, timeout_s: float, spreads: bool) -> None:
    config = ClientConfig(
        tls_ca_file=TLS / "certificate",
        token_file=TLS / "token",
        spread_episodes=spreads,
        keepalive_time_s=2.0,
        keepalive_timeout_s=2.0,
        connect_timeout_s=5.0,
    )
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    with PolicyClient(address, config=config) as client, Path(output).open("w", encoding="utf-8") as out:
        ledger, said_s = Ledger(client, count, timeout_s), 0.0
        while not stopped:
            begun_s = time.monotonic()
            ledger.play()
            if begun_s - said_s > _EACH_S:
                said_s = begun_s
                out.write(json.dumps(ledger.line()) + "\n")
                out.flush()
            time.sleep(max(0.0, count / steps_s - (time.monotonic() - begun_s)))
        ledger.end_all()
        out.write(json.dumps({**ledger.line(), "over": True}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5]), sys.argv[6:] != ["alone"])

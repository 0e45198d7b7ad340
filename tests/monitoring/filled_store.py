"""A store that looks like a run of the pipelines, of any size, written at once or little by little."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.store import EmbeddedStore

EPISODES = 64
BARS = 200
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
NODES = ("market", "execution", "reward", "signal", "policy", "portfolio", "episode")

_BATCH = EPISODES * 100


class FilledRun:
    """Makes the points of a run in which 64 episodes of 200 bars are always played, with an order at every step."""

    def __init__(self, run: str = "run-1", steps_per_s: float = 256.0, policy: str = "PPO", seed: int = 0) -> None:
        self.tags = {"run": run, "policy": policy, "worker": "pipeline-1"}
        self._of_pipeline = self.tags | {"process": "ou"}
        self.steps_per_s = steps_per_s
        self.steps = 0
        self._rng = np.random.default_rng(seed)
        self._reward_sums = np.zeros(EPISODES)
        self._seconds = 0

    def points(self, steps: int, begin_ns: int) -> list[Points]:
        """Make what is recorded during the next steps, of which the run's first would be at `begin_ns`."""
        number = np.arange(self.steps, self.steps + steps)
        times_ns = begin_ns + (number / self.steps_per_s * 1e9).astype(np.int64)
        slot, bar, round_ = number % EPISODES, number // EPISODES % BARS, number // (EPISODES * BARS)
        symbols = [SYMBOLS[each % len(SYMBOLS)] for each in slot]
        names = [f"{symbol}-{each}" for symbol, each in zip(symbols, round_ * EPISODES + slot, strict=True)]
        rewards = self._rng.normal(0.1, 1.0, steps)
        price = 100.0 + self._rng.normal(size=steps)
        costs: dict[str, Any] = {"fee": np.full(steps, 1.5), "slippage": np.full(steps, 0.25)}
        step: dict[str, Any] = {
            "episode": names, "bar": bar, "price": price, "prediction": self._rng.normal(0.0, 1e-3, steps),
            "prediction_std": np.full(steps, 0.01), "action": self._rng.integers(0, 3, steps), "position": self._rng.normal(size=steps),
            "equity": 1e4 + np.cumsum(rewards) / EPISODES, "reward": rewards, "fallback": np.zeros(steps, bool),
            "weights_seq_no": number // 4000,
        }  # fmt: skip
        order: dict[str, Any] = {
            "episode": names,
            "bar": bar,
            "quantity": self._rng.normal(size=steps),
            "reference_price": price,
            "fill_price": price,
        }
        made = [
            Points("step", self._of_pipeline, step | costs, times_ns, {"symbol": symbols}),
            Points("order", self._of_pipeline, order | costs, times_ns, {"symbol": symbols}),
        ]
        np.add.at(self._reward_sums, slot, rewards)
        self.steps += steps
        if len(ended := np.flatnonzero(bar == BARS - 1)):
            made.append(self._episodes(slot[ended], [names[each] for each in ended], times_ns[ended] + 1))
        while self._seconds < self.steps / self.steps_per_s:
            made += self._second(begin_ns + self._seconds * 10**9)
            self._seconds += 1
        return made

    def _episodes(self, slots: np.ndarray, names: list[str], times_ns: np.ndarray) -> Points:
        count = len(names)
        symbols = [SYMBOLS[each % len(SYMBOLS)] for each in slots]
        columns: dict[str, Any] = {
            "episode": names, "return": self._reward_sums[slots], "length": [BARS] * count,
            "no_trade_return": np.zeros(count), "random_return": self._rng.normal(-15.0, 5.0, count), "profit": np.full(count, 0.2),
            "costs": np.full(count, 0.03),
            "turnover": np.full(count, 40.0), "drawdown": np.full(count, 0.1), "ended": ["truncated"] * count,
        }  # fmt: skip
        self._reward_sums[slots] = 0.0
        return Points("episode", self._of_pipeline, columns, times_ns, {"symbol": symbols})

    def _second(self, time_ns: int) -> list[Points]:
        """Make what is recorded once a second."""
        second, at = self._seconds, np.array([time_ns])
        actions = int(second * self.steps_per_s)
        server = {
            "boot_id": "boot-1", "actions": actions, "batches": actions // 32,
            "episodes_open": EPISODES, "steps_waiting": 300 + second % 50, "questions_waiting": second % 20,
            "actions_given": 0, "actions_overridden": 0, "shadow_rows_failed": 0,
            "steps_completed": actions, "steps_dropped": 0, "rows_refused": 0, "weights_seq_no": actions // 4000, "staleness_mean": 1.5,
            "clients_connected": 1, "episodes_finished": actions // BARS,
        }  # fmt: skip
        train = {
            "iteration": second + 1, "loss": 2.0 / (1 + second), "kl": 0.01, "entropy": 1.0, "weights_seq_no": actions // 4000,
            "steps": 4000, "seconds": 1.0, "learn_seconds": 0.5, "steps_total": actions, "staleness_mean": 1.0, "learning_rate": 5e-4,
            "effective_sample_share": 0.97, **{f"steps_behind_{since}": 4000 // 6 for since in (0, 1, 2, 4, 8, 16)},
        }  # fmt: skip
        skill = {"forecasts": 256, "mse": 0.9e-4, "mse_zero": 1e-4, "skill": 0.1, "skipped": 0}
        sink = {"accepted": 2 * actions, "stored": 2 * actions, "backlog": 0, "dropped": 0, "dead_lettered": 0}
        nodes: dict[str, Any] = {
            name: [0] * len(NODES) for name in ("waiting", "queue_max", "overflowed", "failures", "restarts", "fallbacks")
        } | {"processed": [actions] * len(NODES), "threads": [1] * len(NODES)}
        latency = {name: [value if node == "policy" else None for node in NODES] for name, value in _LATENCY_S.items()}
        one = {name: {key: [value] for key, value in fields.items()} for name, fields in _named(server, train, skill, sink).items()}
        return [
            Points("server", self.tags, one["server"], at),
            Points("train", self.tags, one["train"], at),
            Points("regressor", self._of_pipeline, one["regressor"], at),
            Points("sink", self._of_pipeline, one["sink"], at, {"sink": ["EmbeddedStore"]}),
            Points("node", self._of_pipeline, nodes | latency, time_ns + np.arange(len(NODES)), {"node": list(NODES)}),
        ]


_LATENCY_S = {"latency_p50_s": 0.004, "latency_p99_s": 0.03}


def _named(server: dict[str, Any], train: dict[str, Any], skill: dict[str, Any], sink: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"server": server, "train": train, "regressor": skill, "sink": sink}


def fill(path: Path, run: FilledRun, steps: int, end_ns: int | None = None) -> int:
    """Write a run of that many steps, which ends now or at `end_ns`, into a store, and return how many points that are."""
    begin_ns = (time.time_ns() if end_ns is None else end_ns) - int(steps / run.steps_per_s * 1e9)
    EmbeddedStore(path).close(60.0)
    connection = tables.connect(path)
    connection.execute("BEGIN")
    written = 0
    while run.steps < steps:
        for points in run.points(min(_BATCH, steps - run.steps), begin_ns):
            tables.insert(connection, MEASUREMENTS[points.measurement], tables.rows_of(points))
            written += len(points)
    connection.execute("COMMIT")
    connection.close()
    return written

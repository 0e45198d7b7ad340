"""Points that have grown old, and what a store makes of them."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.store.housekeeper import NEWEST_ROWS
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.rollups import MINUTE_NS
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig

TAGS = {"run": "r1", "policy": "p", "process": "ou", "worker": "w1"}
SYMBOLS = ("AAA", "BBB", "CCC")
OFTEN = RetentionConfig(raw_s=3600.0, interval_s=0.02)
OLD_NS = time.time_ns() - 2 * 3600 * 10**9
RECENT = NEWEST_ROWS + 1
MONTH_AGO_NS = (time.time_ns() - 30 * 86_400 * 10**9) // MINUTE_NS * MINUTE_NS


class Steps:
    """Many steps over some minutes, as columns."""

    def __init__(self, count: int, minutes: int, first_ns: int = MONTH_AGO_NS) -> None:
        random = np.random.default_rng(count)
        self.times_ns = first_ns + np.arange(count) * (minutes * MINUTE_NS // count)
        self.rewards = random.normal(size=count)
        self.prices = np.where(random.random(count) < 0.3, np.nan, 100.0 + random.normal(size=count))
        self.actions = random.integers(0, 3, count)
        self.fallbacks = random.random(count) < 0.1
        self.symbols = np.array(SYMBOLS)[random.integers(0, len(SYMBOLS), count)]

    def write(self, store: EmbeddedStore, batch: int = 2000, tags: dict[str, str] = TAGS) -> None:
        for start in range(0, len(self.times_ns), batch):
            part = slice(start, start + batch)
            columns: dict[str, Any] = {
                "episode": ["e"] * len(self.rewards[part]),
                "reward": self.rewards[part],
                "price": self.prices[part],
                "action": self.actions[part],
                "fallback": self.fallbacks[part],
            }
            store.write(Points("step", tags, columns, self.times_ns[part], {"symbol": self.symbols[part].tolist()}))

    def merged(self) -> dict[tuple[int, str], tuple[float, ...]]:
        """Count, sum and extremes of what was written, for each minute and symbol."""
        minutes = self.times_ns // MINUTE_NS * MINUTE_NS
        found: dict[tuple[int, str], tuple[float, ...]] = {}
        for minute in np.unique(minutes):
            for symbol in SYMBOLS:
                here = (minutes == minute) & (self.symbols == symbol)
                if here.any():
                    rewards, prices, actions = self.rewards[here], self.prices[here], self.actions[here]
                    prices = prices[np.isfinite(prices)]
                    found[int(minute), symbol] = (
                        *(here.sum(), rewards.sum(), rewards.min(), rewards.max(), len(prices), prices.sum()),
                        *(prices.min(), prices.max(), actions.sum(), actions.max(), self.fallbacks[here].sum()),
                    )
        return found


def stored_merged(path: Path) -> dict[tuple[int, str], tuple[float, ...]]:
    columns = (
        "points, reward_sum, reward_min, reward_max, price_count, price_sum, price_min, price_max, action_sum, action_max, fallback_sum"
    )
    return {(row[0], row[1]): row[2:] for row in query(path, f"SELECT time_ns, symbol, {columns} FROM step_1m")}


def query(path: Path, statement: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def ledger(path: Path) -> Ledger:
    reader = StoreReader(path)
    try:
        return reader.ledger("r1")
    finally:
        reader.close()


def old_steps(path: Path) -> int:
    """Count the steps of a month ago that are not merged yet."""
    return int(query(path, f"SELECT COUNT(*) FROM step WHERE time_ns < {OLD_NS}")[0][0])


def has_grown(values: list[Ledger], length: int) -> bool:
    return len(values) > length


def assert_merged(path: Path, steps: Steps) -> None:
    """Check that the merged points are what numpy makes of the raw ones."""
    expected, found = steps.merged(), stored_merged(path)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-12, abs=1e-9), key


def write_unmerged(path: Path, steps: Steps) -> None:
    """Make a store of steps that nothing has merged yet."""
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=None)))
    steps.write(store, batch=20_000)
    store.write(recent())
    assert store.flush(60.0)
    store.close(60.0)


def recent() -> Points:
    """Points of now, so many that none of the old ones is among the newest rows, which stay."""
    return Points("step", TAGS, {"reward": np.zeros(RECENT)})

"""Old points become few, and nothing else changes: no sum, no count, no curve."""

from __future__ import annotations

import math
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.points import Points
from policyserver.monitoring.store import housekeeper
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.rollups import MINUTE_NS
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.monitoring.old_points import (
    MONTH_AGO_NS,
    OFTEN,
    RECENT,
    TAGS,
    Steps,
    assert_merged,
    ledger,
    old_steps,
    query,
    recent,
    stored_merged,
    write_unmerged,
)
from tests.services import wait_until


@pytest.mark.long
def test_the_merged_points_are_what_numpy_makes_of_the_raw_ones(path: Path) -> None:
    steps = Steps(30_000, minutes=12)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    steps.write(store)
    store.write(recent())
    assert store.flush(60.0)
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    assert_merged(path, steps)
    assert ledger(path).steps == 30_000 + RECENT
    assert math.isclose(ledger(path).reward_sum, math.fsum(steps.rewards), abs_tol=1e-8)
    store.close(60.0)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.long
def test_a_month_of_steps_stays_in_a_small_file(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    largest, total = 0, 0
    for day in range(30):
        steps = Steps(8000, minutes=8, first_ns=MONTH_AGO_NS + day * 86_400 * 10**9)
        steps.write(store)
        store.write(recent())
        total += 8000 + RECENT
        assert store.flush(60.0)
        wait_until(lambda: not old_steps(path), "the day's steps to be merged")
        largest = max(largest, path.stat().st_size)
    assert ledger(path).steps == total
    wait_until(lambda: query(path, "PRAGMA freelist_count")[0][0] <= housekeeper._SPARE_PAGES, "space to be given back")
    store.close(60.0)
    assert largest < 10_000_000, "a day's steps and what was merged; 240,000 raw ones take 30 MB"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.long
def test_space_is_given_back_to_the_disk(path: Path) -> None:
    write_unmerged(path, Steps(120_000, minutes=5))
    before = path.stat().st_size
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    wait_until(lambda: path.stat().st_size < before / 2, "the file to shrink")
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    store.close(60.0)
    assert path.stat().st_size < housekeeper._SPARE_PAGES * 4096 + 1_000_000
    assert ledger(path).steps == 120_000 + RECENT


@pytest.mark.long
def test_late_points_join_their_minute(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    steps = Steps(4000, minutes=2)
    steps.write(store)
    store.write(recent())
    assert store.flush(60.0)
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    steps.times_ns = steps.times_ns + 1
    steps.write(store)
    store.write(recent())
    assert store.flush(60.0)
    wait_until(lambda: not old_steps(path), "the late steps to be merged")
    expected, found = steps.merged(), stored_merged(path)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key][0] == 2 * values[0]
        assert found[key][1] == pytest.approx(2 * values[1])
        assert found[key][2:4] == pytest.approx(values[2:4])
    store.close(60.0)


def shown(path: Path) -> dict[str, Any]:
    """Read what the page is told of the run with the old points."""
    reader = StoreReader(path)
    try:
        return dict(Feed(reader, PageSelection(run="r1")).changes())
    finally:
        reader.close()


@pytest.mark.long
def test_of_the_servers_counters_the_last_of_each_minute_stays_and_the_rates_with_them(path: Path) -> None:
    count = 3000
    times_ns = MONTH_AGO_NS + np.arange(count) * 10**9
    columns: dict[str, Any] = {
        "boot_id": ["a"] * 1500 + ["b"] * 1500,
        "actions": [*range(0, 15_000, 10), *range(0, 30_000, 20)],
        "steps_dropped": [0] * 1500 + [7] * 1500,
    }
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    store.write(Points("server", {"run": "r1", "worker": "w"}, columns, times_ns))
    store.write(Points("server", {"run": "r2", "worker": "w"}, {"boot_id": ["c"] * RECENT}))
    assert store.flush(60.0)
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM server WHERE run = 'r1'")[0][0] == 50, "one row of each minute to be left")
    assert {row[0] // 10**9 % 60 for row in query(path, "SELECT time_ns FROM server WHERE run = 'r1'")} == {59}
    columns = shown(path)["serving"]["columns"]
    assert {rate for rate in columns["actions_per_s"] if rate is not None} == {10.0, 20.0}
    assert sum(rise for rise in columns["steps_dropped"] if rise is not None) == 7
    store.close(60.0)


@pytest.mark.long
def test_of_the_counters_of_each_node_and_sink_the_last_of_each_minute_stays(path: Path) -> None:
    seconds = np.repeat(np.arange(600), 2)
    times_ns = MONTH_AGO_NS + seconds * 10**9 + np.tile([0, 1], 600)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    store.write(Points("node", TAGS, {"processed": seconds}, times_ns, {"node": ["market", "policy"] * 600}))
    store.write(Points("sink", TAGS, {"accepted": seconds}, times_ns, {"sink": ["EmbeddedStore", "InfluxSink"] * 600}))
    assert store.flush(60.0)

    def left(table: str, tag: str, counter: str) -> list[tuple[Any, ...]]:
        return query(path, f"SELECT COUNT(*), MIN({counter}), MAX({counter}) FROM {table} GROUP BY {tag}")

    wait_until(lambda: left("node", "node", "processed") == [(10, 59, 599)] * 2, "one row of each minute and node")
    wait_until(lambda: left("sink", "sink", "accepted") == [(10, 59, 599)] * 2, "one row of each minute and sink")
    store.close(60.0)


@pytest.mark.long
def test_the_learners_curves_are_those_of_every_iteration(path: Path) -> None:
    count = 3000
    losses = np.random.default_rng(2).normal(size=count)
    times_ns = MONTH_AGO_NS + np.arange(count) * 2 * 10**9
    columns: dict[str, Any] = {"loss": losses, "weights_seq_no": np.arange(count), "kl": [None] * count}
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    store.write(Points("train", {"run": "r1", "worker": "w"}, columns, times_ns))
    assert store.flush(60.0)
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM train")[0][0] == housekeeper.NEWEST_ROWS, "old iterations to be merged")
    columns = shown(path)["learner"]["columns"]
    merged = count - query(path, "SELECT COUNT(*) FROM train")[0][0]  # each to the beginning of its minute
    told_ns = np.where(np.arange(count) < merged, times_ns // MINUTE_NS * MINUTE_NS, times_ns)
    buckets = told_ns // round(np.diff(columns["time_s"]).min() * 1e9)
    assert columns["loss"] == pytest.approx([losses[buckets == bucket].mean() for bucket in np.unique(buckets)], abs=1e-5)
    assert columns["weights_seq_no"][-1] == count - 1
    assert set(columns["kl"]) == {None}
    store.close(60.0)


@pytest.mark.long
def test_the_number_of_raw_points_is_bounded_at_any_age(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=5000, interval_s=0.02)))
    Steps(20_000, minutes=20).write(store)
    assert store.flush(60.0)
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM step")[0][0] <= 6000, "the number to be bounded")
    assert query(path, "SELECT COUNT(*) FROM step")[0][0] >= 5000
    assert ledger(path).steps == 20_000
    store.close(60.0)


@pytest.mark.long
def test_what_is_older_than_it_may_be_is_deleted_whatever_it_is(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=3600.0, keep_s=20 * 86_400.0, interval_s=0.02)))
    for days_ago in (25, 10):
        steps = Steps(3000, minutes=3, first_ns=time.time_ns() // MINUTE_NS * MINUTE_NS - days_ago * 86_400 * 10**9)
        steps.write(store)
        store.write(Points("episode", TAGS, {"return": np.ones(100)}, steps.times_ns[:100]))
    assert store.flush(60.0)
    wait_until(lambda: ledger(path).steps == 3000, "the oldest steps to be deleted")
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM episode") == [(100,)], "the oldest episodes to be deleted")
    store.close(60.0)


@pytest.mark.long
def test_a_store_that_an_older_version_wrote_is_read_and_then_merged(path: Path) -> None:
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE step (id INTEGER PRIMARY KEY, time_ns INTEGER, run TEXT, worker TEXT, reward REAL, UNIQUE (run, time_ns, worker))"
    )
    rows = [(MONTH_AGO_NS + number, "r1", "w", 1.0) for number in range(3000)]
    old.executemany("INSERT INTO step (time_ns, run, worker, reward) VALUES (?, ?, ?, ?)", rows)
    old.commit()
    old.close()
    assert ledger(path) == Ledger(3000, 3000.0)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    store.write(recent())
    assert store.flush(60.0)
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    assert ledger(path) == Ledger(3000 + RECENT, 3000.0)
    store.close(60.0)


@pytest.mark.parametrize("wrong", [{"raw_s": 0.0}, {"raw_points": 0}, {"keep_s": -1.0}, {"interval_s": 0.0}])
def test_a_setting_that_cannot_be_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        RetentionConfig(**wrong)

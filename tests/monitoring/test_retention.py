"""Old points become few, and nothing else changes: no sum, no count, no curve, whoever reads or dies meanwhile."""

from __future__ import annotations

import functools
import math
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitoring import housekeeper, tables
from monitoring.housekeeper import NEWEST_ROWS, Housekeeper
from monitoring.points import Points
from monitoring.reader import Ledger, StoreReader
from monitoring.retention import RetentionConfig
from monitoring.rollups import MINUTE_NS
from monitoring.store import EmbeddedStore, StoreConfig
from tests.services import wait_until

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


def recent() -> Points:
    """Points of now, so many that none of the old ones is among the newest rows, which stay."""
    return Points("step", TAGS, {"reward": np.zeros(RECENT)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "store.sqlite"


def test_the_merged_points_are_what_numpy_makes_of_the_raw_ones(path: Path) -> None:
    steps = Steps(30_000, minutes=12)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    steps.write(store)
    store.write(recent())
    assert store.flush(20.0)
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    expected, found = steps.merged(), stored_merged(path)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-12, abs=1e-9), key
    assert ledger(path).steps == 30_000 + RECENT
    assert math.isclose(ledger(path).reward_sum, math.fsum(steps.rewards), abs_tol=1e-8)
    store.close(5.0)


def test_a_month_of_steps_stays_in_a_small_file(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    largest, total = 0, 0
    for day in range(30):
        steps = Steps(8000, minutes=8, first_ns=MONTH_AGO_NS + day * 86_400 * 10**9)
        steps.write(store)
        store.write(recent())
        total += 8000 + RECENT
        assert store.flush(20.0)
        wait_until(lambda: not old_steps(path), "the day's steps to be merged")
        largest = max(largest, path.stat().st_size)
    assert ledger(path).steps == total
    wait_until(lambda: query(path, "PRAGMA freelist_count")[0][0] <= housekeeper._SPARE_PAGES, "space to be given back")
    store.close(5.0)
    assert largest < 10_000_000, "a day's steps and what was merged; 240,000 raw ones take 30 MB"


def test_space_is_given_back_to_the_disk(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=None)))
    Steps(120_000, minutes=5).write(store, batch=20_000)
    store.write(recent())
    assert store.flush(60.0)
    store.close(20.0)
    before = path.stat().st_size
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    wait_until(lambda: path.stat().st_size < before / 2, "the file to shrink")
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    store.close(5.0)
    assert path.stat().st_size < housekeeper._SPARE_PAGES * 4096 + 1_000_000
    assert ledger(path).steps == 120_000 + RECENT


def test_a_reader_finds_every_point_exactly_once_while_they_are_merged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeper, "BIT_ROWS", 50)
    steps = Steps(20_000, minutes=30)
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=None)))
    steps.write(store, batch=20_000)
    store.write(recent())
    assert store.flush(20.0)
    store.close(5.0)
    seen: list[Ledger] = []
    done = threading.Event()

    def read() -> None:
        reader = StoreReader(path)
        while not done.is_set():
            seen.append(reader.ledger("r1"))
        reader.close()

    looking = threading.Thread(target=read)
    looking.start()
    connection = tables.connect(path)
    merging = Housekeeper(connection, path, OFTEN)
    for _ in range(20):
        merging.work(20)
        wait_until(functools.partial(has_grown, seen, len(seen)), "the reader to look")
    while old_steps(path):
        merging.work(1)
    done.set()
    looking.join()
    assert {each.steps for each in seen} == {20_000 + RECENT}
    assert [each.reward_sum for each in seen] == pytest.approx([math.fsum(steps.rewards)] * len(seen), abs=1e-9)
    merging.close()
    connection.close()


def test_late_points_join_their_minute(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    steps = Steps(4000, minutes=2)
    steps.write(store)
    store.write(recent())
    assert store.flush(20.0)
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    steps.times_ns = steps.times_ns + 1
    steps.write(store)
    store.write(recent())
    assert store.flush(20.0)
    wait_until(lambda: not old_steps(path), "the late steps to be merged")
    expected, found = steps.merged(), stored_merged(path)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key][0] == 2 * values[0]
        assert found[key][1] == pytest.approx(2 * values[1])
        assert found[key][2:4] == pytest.approx(values[2:4])
    store.close(5.0)


def test_a_process_killed_while_it_merges_leaves_every_point_once(path: Path) -> None:
    program = """
import sys
from pathlib import Path
from monitoring import housekeeper, store
from monitoring.retention import RetentionConfig
housekeeper.BIT_ROWS = store.BIT_ROWS = 50
opened = store.EmbeddedStore(Path(sys.argv[1]), store.StoreConfig(retention=RetentionConfig(raw_s=3600.0, interval_s=0.01)))
sys.stdout.write("open\\n")
sys.stdout.flush()
opened._writer.join()
"""
    steps = Steps(30_000, minutes=20)
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=None)))
    steps.write(store, batch=30_000)
    store.write(recent())
    assert store.flush(20.0)
    store.close(5.0)
    left = [old_steps(path)]
    for attempt in range(5):
        merging = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert merging.stdout is not None
        merging.stdout.readline()
        wait_until(lambda: old_steps(path) < left[-1] - 500, "some steps to be merged")
        merging.kill()
        merging.wait()
        merging.stdout.close()
        left.append(old_steps(path))
        assert left[-1] > 0, f"it was killed in the middle, attempt {attempt}"
        assert ledger(path).steps == 30_000 + RECENT
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    wait_until(lambda: not old_steps(path), "the rest to be merged")
    expected, found = steps.merged(), stored_merged(path)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-12, abs=1e-9), key
    store.close(5.0)


def test_two_processes_write_old_and_new_points_to_one_file_and_none_is_lost(path: Path) -> None:
    program = """
import sys
from pathlib import Path
import numpy as np
from monitoring.points import Points
from monitoring.retention import RetentionConfig
from monitoring.store import EmbeddedStore, StoreConfig
config = StoreConfig(commit_interval_s=0.01, retention=RetentionConfig(raw_s=3600.0, interval_s=0.01))
store = EmbeddedStore(Path(sys.argv[1]), config)
for batch in range(60):
    times_ns = int(sys.argv[3]) + (batch * 100 + np.arange(100)) * 10**8
    tags = {"run": "r1", "worker": sys.argv[2]}
    store.write(Points("step", tags, {"reward": np.ones(100)}, times_ns))
    store.write(Points("step", tags, {"reward": np.ones(50)}))
    assert store.flush(20.0)
store.close(20.0)
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), f"w{n}", str(MONTH_AGO_NS)]) for n in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert ledger(path) == Ledger(2 * 60 * 150, 2 * 60 * 150.0)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    store.write(recent())
    assert store.flush(20.0)
    wait_until(lambda: query(path, "SELECT SUM(points) FROM step_1m") == [(12_000,)], "the old points to be merged")
    assert ledger(path) == Ledger(18_000 + RECENT, 18_000.0)
    store.close(5.0)


def test_only_one_housekeeper_of_a_file_is_active_and_another_follows_it(path: Path) -> None:
    retention = RetentionConfig(raw_s=None, raw_points=None)
    store = EmbeddedStore(path, StoreConfig(retention=retention))
    Steps(5000, minutes=2).write(store)
    store.write(recent())
    assert store.flush(20.0)
    store.close(5.0)
    connections = [tables.connect(path) for _ in range(2)]
    first, second = (Housekeeper(connection, path, RetentionConfig(raw_s=3600.0, interval_s=1e-6)) for connection in connections)
    first.work(1)
    second.work(1000)
    assert old_steps(path) > 0, "only the first one's first bit was done"
    first.close()
    first.close()
    second.work(1000)
    assert old_steps(path) == 0
    first.work(1000)
    second.close()
    for connection in connections:
        connection.close()


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
    assert store.flush(20.0)
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM server WHERE run = 'r1'")[0][0] == 50, "one row of each minute to be left")
    assert {row[0] // 10**9 % 60 for row in query(path, "SELECT time_ns FROM server WHERE run = 'r1'")} == {59}
    reader = StoreReader(path)
    series = reader.serving("r1", buckets=50)
    assert set(series["actions_per_s"]) == {None, 10.0, 20.0}
    assert sum(series["steps_dropped"]) == 7
    reader.close()
    store.close(5.0)


def test_the_learners_curves_are_those_of_every_iteration(path: Path) -> None:
    count = 3000
    losses = np.random.default_rng(2).normal(size=count)
    times_ns = MONTH_AGO_NS + np.arange(count) * 2 * 10**9
    columns: dict[str, Any] = {"loss": losses, "weights_seq_no": np.arange(count), "kl": [None] * count}
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    store.write(Points("train", {"run": "r1", "worker": "w"}, columns, times_ns))
    assert store.flush(20.0)
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM train")[0][0] < 1100, "old iterations to be merged")
    reader = StoreReader(path)
    series = reader.learner("r1", buckets=1)
    assert series["loss"] == [pytest.approx(losses.mean())]
    assert series["weights_seq_no"] == [count - 1]
    assert series["kl"] == [None]
    assert reader.newest("train", "r1", limit=1)[0]["weights_seq_no"] == count - 1
    reader.close()
    store.close(5.0)


def test_the_number_of_raw_points_is_bounded_at_any_age(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=5000, interval_s=0.02)))
    Steps(20_000, minutes=20).write(store)
    assert store.flush(20.0)
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM step")[0][0] <= 6000, "the number to be bounded")
    assert query(path, "SELECT COUNT(*) FROM step")[0][0] >= 5000
    assert ledger(path).steps == 20_000
    store.close(5.0)


def test_what_is_older_than_it_may_be_is_deleted_whatever_it_is(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=3600.0, keep_s=20 * 86_400.0, interval_s=0.02)))
    for days_ago in (25, 10):
        steps = Steps(3000, minutes=3, first_ns=time.time_ns() // MINUTE_NS * MINUTE_NS - days_ago * 86_400 * 10**9)
        steps.write(store)
        store.write(Points("episode", TAGS, {"return": np.ones(100)}, steps.times_ns[:100]))
    assert store.flush(20.0)
    wait_until(lambda: ledger(path).steps == 3000, "the oldest steps to be deleted")
    wait_until(lambda: query(path, "SELECT COUNT(*) FROM episode") == [(100,)], "the oldest episodes to be deleted")
    store.close(5.0)


def test_writing_goes_on_while_much_is_merged(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=None)))
    Steps(60_000, minutes=10).write(store, batch=20_000)
    store.write(recent())
    assert store.flush(30.0)
    store.close(20.0)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    took: list[float] = []
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            begun = time.perf_counter()
            store.write(Points("step", TAGS, {"reward": np.ones(10)}))
            took.append(time.perf_counter() - begun)
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    done.set()
    writer.join()
    assert store.flush(20.0)
    assert ledger(path).steps == 60_000 + RECENT + 10 * len(took)
    assert store.statistics().dropped == 0
    store.close(5.0)


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
    assert store.flush(10.0)
    wait_until(lambda: not old_steps(path), "the old steps to be merged")
    assert ledger(path) == Ledger(3000 + RECENT, 3000.0)
    store.close(5.0)


@pytest.mark.parametrize("wrong", [{"raw_s": 0.0}, {"raw_points": 0}, {"keep_s": -1.0}, {"interval_s": 0.0}])
def test_a_setting_that_cannot_be_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        RetentionConfig(**wrong)

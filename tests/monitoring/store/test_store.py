"""The embedded store: what is written is there, for every process, whatever happens."""

from __future__ import annotations

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

from policyserver.monitoring.points import Points
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig

TAGS = {"run": "r1", "policy": "p", "process": "ou", "worker": "w1"}


def steps(rewards: np.ndarray, tags: dict[str, str] = TAGS, times_ns: np.ndarray | None = None) -> Points:
    count = len(rewards)
    columns: dict[str, Any] = {
        "episode": [f"e{i}" for i in range(count)],
        "bar": np.arange(count),
        "reward": rewards,
        "action": np.ones(count, np.int64),
    }
    return Points("step", tags, columns, times_ns, {"symbol": ["AAA"] * count})


@pytest.mark.long
def test_every_point_written_by_many_threads_is_counted_and_summed(path: Path) -> None:
    store = EmbeddedStore(path)
    rewards = np.random.default_rng(0).normal(size=(8, 40, 64))

    def write(worker: int) -> None:
        for batch in rewards[worker]:
            store.write(steps(batch))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.flush(60.0)
    reader = StoreReader(path)
    ledger = reader.ledger("r1")
    assert ledger.steps == rewards.size
    assert math.isclose(ledger.reward_sum, math.fsum(rewards.ravel()), abs_tol=1e-9)
    statistics = store.statistics()
    assert (statistics.accepted, statistics.stored, statistics.backlog, statistics.dropped) == (rewards.size, rewards.size, 0, 0)
    reader.close()
    store.close(60.0)
    store.close(60.0)


@pytest.mark.long
def test_writing_the_same_points_again_changes_nothing(path: Path) -> None:
    store = EmbeddedStore(path)
    points = steps(np.arange(700, dtype=np.float64))
    for _ in range(3):
        store.write(points)
    assert store.flush(60.0)
    reader = StoreReader(path)
    assert reader.ledger("r1").steps == 700
    assert reader.ledger("r1").reward_sum == 699 * 350
    reader.close()
    store.close(60.0)


@pytest.mark.process
def test_processes_write_to_one_file_side_by_side(path: Path) -> None:
    program = """
import sys
from pathlib import Path
from typing import Any
from policyserver.monitoring.points import Points
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
store = EmbeddedStore(Path(sys.argv[1]), StoreConfig(commit_interval_s=0.01))
for start in range(0, 2000, 50):
    store.write(Points("step", {"run": "r1", "worker": sys.argv[2]}, {"reward": [1.0] * 50}))
    store.flush(60.0)
store.close(60.0)
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), f"w{number}"]) for number in range(3)]
    assert [writer.wait(110) for writer in writers] == [0, 0, 0]
    reader = StoreReader(path)
    assert reader.ledger("r1").steps == 6000
    reader.close()


@pytest.mark.long
def test_a_full_queue_blocks_for_the_bound_then_drops_and_counts(path: Path) -> None:
    store = EmbeddedStore(path, StoreConfig(capacity_points=100, block_timeout_s=0.05, retry_interval_s=0.05, commit_interval_s=0.0))
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    took: list[float] = []
    for _ in range(5):
        begun = time.perf_counter()
        store.write(steps(np.ones(40)))
        took.append(time.perf_counter() - begun)
    assert max(took) < 30.0, "and not for as long as the file is locked"
    statistics = store.statistics()
    assert (statistics.accepted, statistics.dropped, statistics.backlog) == (80, 120, 80)
    assert "dropped" in statistics.last_error
    lock.execute("COMMIT")
    assert store.flush(60.0)
    assert store.statistics().stored == 80
    lock.close()
    store.close(60.0)


@pytest.mark.long
def test_a_batch_of_wrong_values_is_put_aside_and_the_others_stored(path: Path) -> None:
    store = EmbeddedStore(path)
    store.write(steps(np.ones(10)))
    store.write(Points("step", TAGS, {"action": ["sell"], "reward": [5.0]}))
    store.write(steps(np.ones(10)))
    assert store.flush(60.0)
    statistics = store.statistics()
    assert (statistics.stored, statistics.dead_lettered) == (20, 1)
    assert "step.action" in statistics.last_error
    store.close(60.0)


@pytest.mark.long
def test_a_store_that_stays_locked_loses_its_points_at_close_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = EmbeddedStore(path, StoreConfig(retry_interval_s=0.05))
    monkeypatch.setattr(tables, "BUSY_S", 100.0)
    store._under_way_s = 50.0
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    store.write(steps(np.ones(10)))
    begun = time.monotonic()
    store.close(0.3)
    assert time.monotonic() - begun < 50.0, "and not until SQLite has waited for the lock"
    assert store.statistics().backlog == 10
    assert "points lost" in caplog.text
    lock.close()


@pytest.mark.long
def test_writing_after_close_is_counted_as_dropped(path: Path) -> None:
    store = EmbeddedStore(path)
    store.close(60.0)
    store.write(steps(np.ones(3)))
    assert store.statistics().dropped == 3


@pytest.mark.long
def test_a_store_of_an_older_schema_gains_the_new_columns(path: Path) -> None:
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE step (id INTEGER PRIMARY KEY, time_ns INTEGER, run TEXT, worker TEXT, reward REAL, UNIQUE (run, time_ns, worker))"
    )
    old.execute("INSERT INTO step (time_ns, run, worker, reward) VALUES (1, 'r1', 'w', 2.0)")
    old.commit()
    old.close()
    store = EmbeddedStore(path)
    store.write(steps(np.ones(1)))
    assert store.flush(60.0)
    reader = StoreReader(path)
    assert reader.ledger("r1").reward_sum == 3.0
    assert [row["symbol"] for row in reader.newest("step", "r1")] == ["AAA", "none"]
    reader.close()
    store.close(60.0)


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="embedded store"):
        StoreReader(tmp_path / "nothing.sqlite")
    with pytest.raises(FileNotFoundError, match="received a folder at"):
        StoreReader(tmp_path)
    (tmp_path / "README.md").write_text("# no database")
    with pytest.raises(ValueError, match=r"README.md is no SQLite database"):
        StoreReader(tmp_path / "README.md")


def test_episodes_that_were_cut_before_their_time_are_no_whole_ones(path: Path) -> None:
    store = EmbeddedStore(path)
    store.write(Points("episode", TAGS, {"return": [4.0, 6.0, 99.0], "no_trade_return": [0.0, 0.0, None]}, np.arange(3)))
    assert store.flush(60.0)
    reader = StoreReader(path)
    assert reader.select('SELECT "return" FROM whole_episode ORDER BY id') == [(4.0,), (6.0,)]
    reader.close()
    store.close(60.0)


def test_the_newest_rows_come_first_and_only_those_after_an_id(path: Path) -> None:
    store = EmbeddedStore(path)
    store.write(steps(np.arange(30, dtype=np.float64)))
    assert store.flush(60.0)
    reader = StoreReader(path)
    rows = reader.newest("step", "r1", limit=5)
    assert [row["reward"] for row in rows] == [29.0, 28.0, 27.0, 26.0, 25.0]
    assert [row["reward"] for row in reader.newest("step", "r1", after_id=rows[1]["id"])] == [29.0]
    assert reader.runs() == ["r1"]
    store.write(steps(np.ones(1)))
    assert store.flush(60.0)
    assert reader.newest_ids()["step"] == 31
    reader.close()
    store.close(60.0)


@pytest.mark.long
def test_rows_of_any_number_are_inserted_once_each(path: Path) -> None:
    path.parent.mkdir()
    connection = tables.connect(path)
    tables.create(connection)
    points = steps(np.arange(655, dtype=np.float64))
    tables.insert(connection, points.schema, tables.rows_of(points))
    assert connection.execute("SELECT COUNT(*), SUM(reward) FROM step").fetchone() == (655, 654 * 655 / 2)
    connection.close()


@pytest.mark.long
def test_a_writer_that_fails_for_good_ends_the_wait_and_says_why(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = EmbeddedStore(path)
    monkeypatch.setattr("policyserver.monitoring.store.store.tables.rows_of", lambda points: 1 / 0)
    store.write(steps(np.ones(5)))
    begun = time.monotonic()
    assert not store.flush(60.0)
    assert time.monotonic() - begun < 30.0
    assert "division" in store.statistics().last_error
    assert "points are lost" in caplog.text
    store.write(steps(np.ones(5)))
    assert store.statistics().dropped == 5
    store.close(1.0)


@pytest.mark.process
def test_a_writer_killed_in_the_middle_leaves_a_store_of_whole_batches(path: Path) -> None:
    program = """
import sys
from pathlib import Path
from policyserver.monitoring.points import Points
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
store = EmbeddedStore(Path(sys.argv[1]), StoreConfig(commit_interval_s=0.0))
while True:
    store.write(Points("step", {"run": "r1", "worker": "dead"}, {"reward": [1.0] * 50}))
    store.flush(60.0)
    sys.stdout.write("committed\\n")
    sys.stdout.flush()
"""
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    committed = [writer.stdout.readline() for _ in range(100)]
    writer.kill()
    committed += writer.stdout.read().split(b"\n")[:-1]
    writer.wait()
    writer.stdout.close()
    store = EmbeddedStore(path)
    store.write(steps(np.ones(1)))
    assert store.flush(60.0)
    reader = StoreReader(path)
    stored = reader.ledger("r1").steps - 1
    assert stored % 50 == 0
    assert 0 <= stored // 50 - len(committed) <= 1
    reader.close()
    store.close(60.0)

"""Points are merged while others write, read or die: each is there once, and nobody waits."""

from __future__ import annotations

import functools
import math
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.store import housekeeper, tables
from policyserver.monitoring.store.housekeeper import Housekeeper
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.monitoring.old_points import (
    MONTH_AGO_NS,
    OFTEN,
    RECENT,
    TAGS,
    Steps,
    assert_merged,
    has_grown,
    ledger,
    old_steps,
    query,
    recent,
    write_unmerged,
)
from tests.services import wait_until


@pytest.mark.long
def test_a_reader_finds_every_point_exactly_once_while_they_are_merged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeper, "BIT_ROWS", 50)
    steps = Steps(8_000, minutes=30)
    write_unmerged(path, steps)
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
        merging.work(8)
        wait_until(functools.partial(has_grown, seen, len(seen)), "the reader to look")
    while old_steps(path):
        merging.work(1)
    done.set()
    looking.join()
    assert {each.steps for each in seen} == {8_000 + RECENT}
    assert [each.reward_sum for each in seen] == pytest.approx([math.fsum(steps.rewards)] * len(seen), abs=1e-9)
    merging.close()
    connection.close()


@pytest.mark.process
def test_a_process_killed_while_it_merges_leaves_every_point_once(path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from policyserver.monitoring.store import housekeeper
from policyserver.monitoring.store import store
from policyserver.monitoring.store.retention import RetentionConfig
housekeeper.BIT_ROWS = store.BIT_ROWS = 50
bits = 0

def follow(statement):
    global bits
    bits += statement.startswith("COMMIT")
    if bits >= 20 and statement.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

opened = store.EmbeddedStore(Path(sys.argv[1]), store.StoreConfig(retention=RetentionConfig(raw_s=3600.0, interval_s=0.01)))
opened._connection.set_trace_callback(follow)
opened._thread.join()
"""
    steps = Steps(30_000, minutes=20)
    write_unmerged(path, steps)
    left = old_steps(path)
    for statement in ("BEGIN", "INSERT", "DELETE", "COMMIT", "DELETE"):  # which it is killed before
        merging = subprocess.run([sys.executable, "-c", program, str(path), statement], timeout=100, check=False)
        assert merging.returncode == -signal.SIGKILL
        before, left = left, old_steps(path)
        assert before - 500 > left > 0, f"it was killed in the middle, before a {statement}"
        assert ledger(path).steps == 30_000 + RECENT
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    wait_until(lambda: not old_steps(path), "the rest to be merged")
    assert_merged(path, steps)
    store.close(60.0)


@pytest.mark.process
def test_two_processes_write_old_and_new_points_to_one_file_and_none_is_lost(path: Path) -> None:
    program = """
import sys
from pathlib import Path
import numpy as np
from policyserver.monitoring.points import Points
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
config = StoreConfig(commit_interval_s=0.01, retention=RetentionConfig(raw_s=3600.0, interval_s=0.01))
store = EmbeddedStore(Path(sys.argv[1]), config)
for batch in range(60):
    times_ns = int(sys.argv[3]) + (batch * 100 + np.arange(100)) * 10**8
    tags = {"run": "r1", "worker": sys.argv[2]}
    store.write(Points("step", tags, {"reward": np.ones(100)}, times_ns))
    store.write(Points("step", tags, {"reward": np.ones(50)}))
    assert store.flush(60.0)
store.close(60.0)
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), f"w{n}", str(MONTH_AGO_NS)]) for n in range(2)]
    assert [writer.wait(110) for writer in writers] == [0, 0]
    assert ledger(path) == Ledger(2 * 60 * 150, 2 * 60 * 150.0)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    store.write(recent())
    assert store.flush(60.0)
    wait_until(lambda: query(path, "SELECT SUM(points) FROM step_1m") == [(12_000,)], "the old points to be merged")
    assert ledger(path) == Ledger(18_000 + RECENT, 18_000.0)
    store.close(60.0)


@pytest.mark.long
def test_only_one_housekeeper_of_a_file_is_active_and_another_follows_it(path: Path) -> None:
    write_unmerged(path, Steps(5000, minutes=2))
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


@pytest.mark.long
def test_writing_goes_on_while_much_is_merged(path: Path) -> None:
    write_unmerged(path, Steps(60_000, minutes=10))
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
    assert store.flush(60.0)
    assert ledger(path).steps == 60_000 + RECENT + 10 * len(took)
    assert store.statistics().dropped == 0
    store.close(60.0)

"""What the embedded store says while its file can't be written: one line when that begins, one when it is over."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import Measurement
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.services import wait_until


@pytest.mark.long
def test_closing_keeps_its_time_with_a_disk_that_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite", StoreConfig(commit_points=5))
    insert, begun, written = tables.insert, threading.Event(), threading.Event()

    def slowly(connection: sqlite3.Connection, measurement: Measurement, rows: list[tuple[Any, ...]]) -> None:
        begun.set()
        assert written.wait(60.0)  # all of them wait for the first
        time.sleep(0.01 * len(rows))
        insert(connection, measurement, rows)

    monkeypatch.setattr(tables, "insert", slowly)
    for _ in range(1600):
        store.write(points(5))
    assert begun.wait(60.0)
    written.set()
    store.close(0.3)  # while all of them take eighty seconds
    left = store.statistics().backlog
    assert 0 < left < 8000
    assert f"closed with {left} points lost, for the time to write them was up" in caplog.text
    with contextlib.closing(tables.connect(store.path, read_only=True)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM step").fetchone() == (8000 - left,)


def test_a_damaged_store_that_cannot_be_closed_ends_no_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite", StoreConfig(retry_interval_s=0.01))
    broken = store._housekeeper

    def refused() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(broken._lock, "release", refused)
    insert = tables.insert

    def damaged(*_: Any) -> None:
        monkeypatch.setattr(tables, "insert", insert)
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(tables, "insert", damaged)
    store.write(points(10))
    assert store.flush(60.0)
    store.close(60.0)
    assert len(list(tmp_path.glob("store.sqlite.damaged-*"))) >= 1


def points(count: int) -> Points:
    return Points("step", {"run": "r", "worker": "w"}, {"reward": np.ones(count)})


@pytest.mark.long
def test_a_full_disk_and_a_full_queue_are_one_line_each_and_their_end_says_what_had_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = 0
    insert = tables.insert

    def without_room(*arguments: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise sqlite3.OperationalError("database or disk is full")

    store = EmbeddedStore(
        tmp_path / "store.sqlite", StoreConfig(commit_interval_s=0.02, retry_interval_s=0.02, capacity_points=100, block_timeout_s=0.0)
    )
    monkeypatch.setattr(tables, "insert", without_room)
    for _ in range(3):  # each write into the full queue comes between two attempts to write the file
        for _ in range(12):
            store.write(points(10))
        tried = attempts
        wait_until(lambda: attempts >= tried + 2, "two attempts")  # noqa: B023
    assert store.statistics().dropped == 3 * 120 - 100
    monkeypatch.setattr(tables, "insert", insert)
    assert store.flush(60.0)
    store.write(points(1))
    store.close(60.0)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 4, "\n".join(lines)
    assert sum("disk is full; trying again" in line for line in lines) == 1
    assert sum("points dropped: capacity_points is reached" in line for line in lines) == 1
    assert any("it is written again, 100 points had waited, after" in line for line in lines)
    assert "points are taken again, 260 were dropped since the start" in lines[3]

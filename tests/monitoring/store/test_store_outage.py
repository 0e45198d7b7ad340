"""What the embedded store says while its file can't be written: one line when that begins, one when it is over."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.services import wait_until


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
    assert store.flush(10.0)
    store.write(points(1))
    store.close(30.0)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 4, "\n".join(lines)
    assert sum("disk is full; trying again" in line for line in lines) == 1
    assert sum("points dropped: capacity_points is reached" in line for line in lines) == 1
    assert any("it is written again, 100 points had waited, after" in line for line in lines)
    assert "points are taken again, 260 were dropped since the start" in lines[3]

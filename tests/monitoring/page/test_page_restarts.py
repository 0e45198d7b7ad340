"""What the page is told of a run whose serving processes came and went: totals, restarts, checkpoints, gaps, rates, whether it lives."""

from __future__ import annotations

import functools
import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.page.feed import LIVE_S, Feed
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.reader import StoreReader
from tests.services import wait_until

BEGIN_S = 1_700_000_000
RUN = {"run": "r", "policy": "PPO"}


def write(path: Path, *batches: Points) -> None:
    with closing(tables.connect(path)) as connection:
        connection.execute("BEGIN")
        for points in batches:
            tables.insert(connection, MEASUREMENTS[points.measurement], tables.rows_of(points))
        connection.execute("COMMIT")


def server(begin_s: float, seconds: int, boot_id: str, worker: str = "w", late_s: float = 0.0, **gauges: int) -> Points:
    """A server that completes 10 actions and steps a second, counted from 0, and is asked once a second."""
    count = np.arange(seconds)
    columns: dict[str, Any] = {"boot_id": [boot_id] * seconds, "actions": 10 * count, "steps_completed": 10 * count, "batches": 2 * count}
    columns |= {"steps_dropped": count, "episodes_finished": count} | {name: [value] * seconds for name, value in gauges.items()}
    return Points("server", RUN | {"worker": worker}, columns, ((BEGIN_S + begin_s + late_s + count) * 1e9).astype(np.int64))


def train(at_s: list[float], paths: list[str | None], worker: str) -> Points:
    columns: dict[str, Any] = {"iteration": list(range(len(at_s))), "checkpoint_path": paths}
    return Points("train", RUN | {"worker": worker}, columns, ((BEGIN_S + np.array(at_s)) * 1e9).astype(np.int64))


def changes(path: Path, **selection: Any) -> dict[str, Any]:
    reader = StoreReader(path)
    try:
        return dict(Feed(reader, PageSelection(**selection)).changes())
    finally:
        reader.close()


def told(path: Path) -> dict[str, Any]:
    rows = changes(path)["server"]
    assert len(rows) == 1
    return dict(rows[0])


@pytest.mark.long
def test_counters_add_up_over_serving_processes_and_gauges_over_those_that_are_there(path: Path) -> None:
    write(path, server(0, 101, "one", episodes_open=7, steps_waiting=70))
    write(path, server(200, 51, "two", "w", episodes_open=3, steps_waiting=30), server(200, 51, "three", "w", episodes_open=2))
    write(path, server(200, 51, "two", "pipeline", episodes_open=3, steps_waiting=30))
    row = told(path)
    assert row["steps_completed"] == 1000 + 500 + 500
    assert row["steps_dropped"] == 100 + 50 + 50
    assert row["episodes_finished"] == 200
    assert (row["episodes_open"], row["steps_waiting"]) == (5, 30)


def has_news(feed: Feed, rows: list[Any]) -> bool:
    """Take what changed; whether the server's figures did."""
    told = [data for name, data in feed.changes() if name == "server"]
    rows += told
    return bool(told)


@pytest.mark.long
def test_what_is_read_bit_by_bit_adds_up_to_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserver.monitoring.page.feed._MAX_READING_SHARE", math.inf)  # else what it took decides when it is read again
    reader = StoreReader(path)
    feed = Feed(reader, PageSelection(run="r"))
    rows: list[Any] = []
    for begin_s, boot_id in ((0, "one"), (100, "two"), (200, "three")):
        write(path, server(begin_s, 51, boot_id, episodes_open=4))
        wait_until(functools.partial(has_news, feed, rows), "the section to be read again")
    assert [row[0]["steps_completed"] for row in rows] == [500, 1000, 1500]
    assert rows[-1] == changes(path)["server"]
    reader.close()


@pytest.mark.long
def test_the_rate_of_a_bucket_that_has_just_begun_is_not_made_of_two_points_of_one_moment(path: Path) -> None:
    # Two processes ask the same server; the second is told the same 50 ms later, and that alone is in the newest bucket.
    write(path, server(0.97, 60, "boot"), server(0.97, 60, "boot", "other", late_s=0.05))
    rates = changes(path)["serving"]["columns"]["actions_per_s"]
    known = [rate for rate in rates if rate is not None]
    assert len(known) >= 29
    assert known == pytest.approx([10.0] * len(known), rel=0.1)
    assert told(path).get("actions_per_s") == pytest.approx(10.0, rel=0.2)


@pytest.mark.long
def test_processes_that_followed_each_other_within_a_bucket_share_its_time(path: Path) -> None:
    for number in range(20):
        write(path, server(300 * number, 298, f"boot-{number}"))
    columns = changes(path)["serving"]["columns"]
    assert columns["time_s"][1] - columns["time_s"][0] >= 16, "wide buckets, of which many have two processes"
    assert max(rate for rate in columns["actions_per_s"] if rate is not None) < 12


@pytest.mark.long
def test_restarts_checkpoints_and_gaps_are_told(path: Path) -> None:
    write(path, server(0, 100, "one"), server(0, 100, "beside"), server(160, 100, "two"))
    write(path, train([20, 40, 60], [None, "c-1", "c-2"], "server-1"), train([180, 200, 220], ["c-3", "c-3", "c-4"], "server-2"))
    write(path, Points("node", RUN | {"node": "policy"}, {"waiting": [0] * 300}, (BEGIN_S + np.arange(300)) * 10**9))
    marks = changes(path).get("marks", {})
    assert [round(time_s - BEGIN_S) for time_s in marks.get("restarts", [])] == [160]
    # The third was found by the second server's first iteration: the first server wrote it when it ended.
    assert [round(time_s - BEGIN_S) for time_s in marks["checkpoints"]] == [40, 60, 220]
    ((begin_s, end_s),) = marks["gaps"]["serving"]
    assert (begin_s - BEGIN_S, end_s - BEGIN_S) == pytest.approx((99, 161), abs=1.1)
    assert marks["gaps"]["pipeline"] == []


@pytest.mark.long
def test_a_run_lives_while_its_newest_point_is_new(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(**selection: Any) -> dict[str, Any]:
        return dict(changes(path, **selection).get("state", {}))

    assert state().get("state") == "empty"
    write(path, server(0, 100, "old"))
    assert state() == {"state": "silent", "newest_s": BEGIN_S + 99}
    assert state(run="typo")["state"] == "unknown"
    for now_s, expected in ((BEGIN_S + 99 + LIVE_S + 0.1, "silent"), (BEGIN_S + 99 + LIVE_S - 0.1, "live")):
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        assert state()["state"] == expected

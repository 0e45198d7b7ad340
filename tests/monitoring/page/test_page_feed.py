"""What the page is told: the same, whether a run is read at once or while it grows, and the same as a plain query says."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.page.buckets import Buckets
from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.sections import SOURCES
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.panels.table import TIME
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.housekeeper import NEWEST_ROWS
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.monitoring.filled_store import FilledRun, fill
from tests.monitoring.old_points import OFTEN, query
from tests.services import wait_until

BEGIN_NS = 1_700_000_000 * 10**9
STEPS_PER_S = 16.0


class Viewer:
    """Puts the changes of a feed together as the browser does."""

    def __init__(self, reader: StoreReader, **selection: Any) -> None:
        self.feed = Feed(reader, PageSelection(**selection))
        self.shown: dict[str, Any] = {}

    def look(self) -> set[str]:
        """Take the changes in; the sections that had some."""
        changes = list(self.feed.changes())
        for name, data in changes:
            held = self.shown.get(name)
            if not isinstance(data, dict) or "columns" not in data:
                self.shown[name] = data
            elif data.get("from_s") is None or held is None:
                self.shown[name] = data["columns"]
            else:
                kept = [index for index, time_s in enumerate(held["time_s"]) if data["begin_s"] <= time_s < data["from_s"]]
                self.shown[name] = {key: [held[key][index] for index in kept] + values for key, values in data["columns"].items()}
        return {name for name, _ in changes}


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything be read at every look, whatever it costs."""
    monkeypatch.setattr("policyserver.monitoring.page.feed._STATE_EVERY_S", 0.0)
    monkeypatch.setattr("policyserver.monitoring.page.feed._MAX_READING_SHARE", math.inf)


def write(path: Path, *batches: Points) -> None:
    with closing(tables.connect(path)) as connection:
        connection.execute("BEGIN")
        for points in batches:
            tables.insert(connection, MEASUREMENTS[points.measurement], tables.rows_of(points))
        connection.execute("COMMIT")


def server(seconds: range, boot_id: str, worker: str = "w", dropped: int = 0) -> Points:
    """A server that computes 10 actions in 2 batches each second, counted from 0."""
    count = len(seconds)
    columns: dict[str, Any] = {
        "boot_id": [boot_id] * count, "actions": 10 * np.arange(count), "batches": 2 * np.arange(count), "episodes_open": [4] * count,
        "steps_dropped": [dropped] * count,
    }  # fmt: skip
    return Points("server", {"run": "r", "policy": "PPO", "worker": worker}, columns, BEGIN_NS + np.array(seconds) * 10**9)


@pytest.mark.parametrize("range_s", [None, 300])
@pytest.mark.usefixtures("unhurried")
@pytest.mark.long
def test_a_viewer_who_was_there_all_along_sees_what_one_sees_who_comes_now(path: Path, range_s: int | None) -> None:
    run, reader = FilledRun("r", STEPS_PER_S), StoreReader(path)
    early = Viewer(reader, range_s=range_s)
    for _ in range(25):
        write(path, *run.points(640, BEGIN_NS))
        early.look()
    assert run.steps / STEPS_PER_S == 1000, "longer than 480 buckets of 2 s"
    late = Viewer(reader, range_s=range_s)
    late.look()
    assert early.shown.keys() == late.shown.keys()
    for name, expected in late.shown.items():
        if name in ("choices", "decisions", "server", "train", "state", "marks"):
            assert early.shown[name] == expected, name
            continue
        # The one who was there knows what the counters were before the range began, and buckets of before it.
        first = 1 if range_s else 0
        for column, values in expected.items():
            held = early.shown[name][column][-len(values) :]
            known = [(one, other) for one, other in zip(held[first:], values[first:], strict=True) if other is not None]
            assert [one for one, _ in known] == pytest.approx([other for _, other in known], rel=1e-5, abs=1e-12), f"{name}.{column}"
    assert early.feed._view is not None
    held = [len(curves.columns(0)["time_s"]) for curves in early.feed._view._curves]
    assert 100 < max(held) <= (480 if range_s is None else 152), "neither grows with the run"
    reader.close()


@pytest.mark.long
def test_a_look_sends_only_what_changed(path: Path) -> None:
    run, reader = FilledRun("r", STEPS_PER_S), StoreReader(path)
    write(path, *run.points(64 * 100, BEGIN_NS))
    viewer = Viewer(reader)
    assert {"choices", "decisions", "running", "steps", "episodes", "learner", "sink"} <= viewer.look()
    assert viewer.look() == set()
    write(path, *run.points(8, BEGIN_NS))
    changes = dict(viewer.feed.changes())
    assert "episodes" not in changes
    assert len(changes["steps"]["columns"]["time_s"]) == 1, "the bucket that grew"
    reader.close()


@pytest.mark.long
def test_columns_are_what_a_plain_query_says(path: Path) -> None:
    fill(path, FilledRun("r", STEPS_PER_S), steps=64 * 400, end_ns=BEGIN_NS)
    reader = StoreReader(path)
    viewer = Viewer(reader, symbol="BBB")
    viewer.look()
    episodes, steps = viewer.shown["episodes"], viewer.shown["steps"]
    width_s = min(np.diff(steps["time_s"]))
    at = int(np.argmax(episodes["episodes"]))
    low, high = (int((episodes["time_s"][at] + side * width_s / 2) * 1e9) for side in (-1, 1))
    with closing(sqlite3.connect(path)) as plain:
        where = "symbol = 'BBB' AND time_ns >= ? AND time_ns < ?"
        rows = plain.execute(f'SELECT "return", random_return FROM episode WHERE {where}', (low, high)).fetchall()
        taken, sold, fees = plain.execute(f"SELECT COUNT(*), SUM(action = 0), SUM(fee) FROM step WHERE {where}", (low, high)).fetchone()
        ended = plain.execute(
            "SELECT \"return\", random_return FROM episode WHERE symbol = 'BBB' AND time_ns < ? ORDER BY time_ns", (high,)
        )
        newest = np.array(ended.fetchall())
    returns = np.array(rows)[:, 0]
    policy, random = newest[-round(len(newest) / 10) :].mean(axis=0)
    assert len(rows) == episodes["episodes"][at] == 16
    for share, name in ((0.05, "return_p05"), (0.5, "return_p50"), (0.95, "return_p95")):
        assert episodes[name][at] == pytest.approx(np.quantile(returns, share), rel=1e-5)
    assert episodes["policy"][at] == pytest.approx(policy, rel=1e-5)
    assert episodes["random"][at] == pytest.approx(random, rel=1e-5)
    index = steps["time_s"].index(episodes["time_s"][at])
    assert steps["sell"][index] == pytest.approx(sold / taken, rel=1e-5)
    assert steps["fee"][index] == pytest.approx(fees / taken, rel=1e-5)
    reader.close()


@pytest.mark.long
def test_a_server_that_began_anew_and_one_that_two_pipelines_ask_are_counted_once(path: Path) -> None:
    write(path, server(range(60), "first", dropped=7), server(range(60), "first", worker="other", dropped=7))
    write(path, server(range(60, 120), "second", dropped=3))
    reader = StoreReader(path)
    viewer = Viewer(reader)
    viewer.look()
    serving = viewer.shown["serving"]
    rates = [rate for rate in serving["actions_per_s"] if rate is not None]
    assert rates == pytest.approx([10.0] * len(rates))
    assert len(rates) >= len(serving["time_s"]) - 2, "all but those in which a server began"
    assert sum(serving["steps_dropped"]) == 10
    assert set(serving["episodes_open"]) == {4}
    assert [size for size in serving["batch_size"] if size is not None] == pytest.approx([5.0] * (len(serving["time_s"])))
    reader.close()


@pytest.mark.long
def test_running_episodes_are_those_that_began_here_and_have_not_ended(path: Path) -> None:
    def steps(episode: str, bars: range, equity: list[float]) -> Points:
        columns: dict[str, Any] = {"episode": [episode] * len(bars), "bar": list(bars), "reward": [1.0] * len(bars), "equity": equity}
        return Points("step", {"run": "r"}, columns)

    write(path, steps("falls", range(4), [100.0, 80.0, 90.0, 120.0]), steps("short", range(2), [100.0, 110.0]))
    write(path, steps("ended", range(3), [1.0, 1.0, 1.0]), steps("begun before", range(7, 9), [1.0, 1.0]))
    write(path, Points.one("episode", {"run": "r"}, {"episode": "ended", "return": 3.0}))
    reader = StoreReader(path)
    viewer = Viewer(reader)
    viewer.look()
    running = viewer.shown["running"]
    assert running["bar"] == [0, 1, 2, 3]
    assert running["episodes"] == [2, 2, 1, 1]
    assert running["reward_p50"] == [1, 2, 3, 4]
    assert running["equity_p50"] == [100, 95, 90, 120]
    assert running["drawdown_p95"] == pytest.approx([0.0, 0.19, 0.1, 0.0])
    write(path, Points.one("episode", {"run": "r"}, {"episode": "falls", "return": 4.0}))
    viewer.look()
    assert viewer.shown["running"]["bar"] == [0, 1]
    reader.close()


@pytest.mark.long
def test_points_that_were_merged_by_the_minute_count_as_before(path: Path) -> None:
    fill(path, FilledRun("r", steps_per_s=4.0), steps=64 * 150, end_ns=BEGIN_NS)
    before = totals(path)
    store = EmbeddedStore(path, StoreConfig(retention=OFTEN))
    counts = " UNION ALL ".join(f"SELECT COUNT(*) FROM {name}" for name in ("step", "train", "regressor"))
    wait_until(lambda: query(path, counts) == [(NEWEST_ROWS,)] * 3, "all that may be merged to be merged")
    store.close(60.0)
    after = totals(path)
    assert before["steps"]["steps"] == 64 * 150
    for section, sums in before.items():
        for name, value in sums.items():
            if name in ("sell", "hold", "buy"):  # which are not known of merged steps
                assert 0 < after[section][name] < NEWEST_ROWS < value
            else:
                assert after[section][name] == pytest.approx(value, rel=1e-9), f"{section}.{name}"


def totals(path: Path) -> dict[str, dict[str, float]]:
    """Return every sum and the largest maximum of the sections whose old points are merged, over the whole run."""
    reader, found = StoreReader(path), {}
    for source in SOURCES:
        if source.measurement in ("step", "train", "regressor"):
            buckets = Buckets(source, PageSelection(), "r", 2 * 10**9, 0)
            buckets.read(reader, reader.newest_ids()[source.measurement])
            table = buckets.since(0)
            found[source.name] = {name: float(np.nansum(table.sum(name))) for name in source.sums}
            found[source.name] |= {name: float(np.nanmax(table.largest(name))) for name in source.maxima if name != TIME}
    reader.close()
    return found

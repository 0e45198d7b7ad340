"""The server's record has each episode of any client once, and its curve: those that a client records there itself are left to it."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.points import Points
from policyserver.monitoring.recording import RecordingConfig, places
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.server.daemon.served_episodes import ServedEpisodes
from policyserver.server.processes.serving_report import ServingReport
from tests.commands import run_here

TAGS = {"run": "run-1", "policy": "PPO", "worker": "server-1"}


@pytest.fixture(autouse=True)
def no_influx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFLUXDB_V2_URL", raising=False)


def report(returns: list[float], records_in: tuple[str, ...] = (), ended: str = "terminated") -> ServingReport:
    count = len(returns)
    columns: dict[str, list[Any]] = {
        "client": ["stream:one"] * count, "records_in": [records_in] * count, "episode": [f"{value}" for value in returns],
        "return": returns, "length": [10] * count, "seconds": [0.5] * count, "weights_seq_no": [3] * count, "trained": [True] * count,
        "given": [2] * count, "overridden": [1] * count,
        "ended": [ended] * count, "explored": [True] * count, "decided_by": ["live"] * count, "greedy": [False] * count,
    }  # fmt: skip
    return ServingReport({"boot_id": "0123456789abcdef"}, columns)


def stored(store: EmbeddedStore) -> None:
    assert store.flush(60.0)
    store.close(60.0)


def page(store: Path) -> dict[str, list[Any]]:
    with contextlib.closing(StoreReader(store)) as reader:
        columns: dict[str, list[Any]] = dict(Feed(reader, PageSelection()).changes())["episodes"]["columns"]
        return columns


@pytest.mark.long
def test_episodes_of_any_client_make_the_curve_of_page_grafana_and_export(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    episodes = ServedEpisodes(store, TAGS)
    returns = [float(value) for value in range(40)]
    episodes.write(report(returns))
    episodes.write(report([1000.0], ended="lost"))
    episodes.write(ServingReport({"boot_id": "0123456789abcdef"}))
    stored(store)
    mean = float(np.mean(returns[-4:]))
    assert page(store.path)["policy"] == [mean], "a lost one is cut, so no mean counts it"
    assert sum(page(store.path)["episodes"]) == 40
    with contextlib.closing(StoreReader(store.path)) as reader:
        (result,) = reader.newest("result", "run-1")
    assert (result["episodes"], result["return_mean"]) == (40, mean), "what Grafana shows"
    exported = run_here("policy-monitor", "export", "--store", str(store.path), "--format", "csv", "--measurement", "episode").stdout
    rows = list(csv.DictReader(io.StringIO(exported)))
    assert [row["return"] for row in rows] == [f"{value}" for value in [*returns, 1000.0]]
    assert {(row["worker"], row["client"], row["length"], row["seconds"], row["weights_seq_no"]) for row in rows} == {
        ("serving-01234567", "stream:one", "10", "0.5", "3")
    }


@pytest.mark.long
def test_an_episode_that_its_client_records_in_the_same_store_is_there_once(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    episodes = ServedEpisodes(store, TAGS)
    of_pipeline = places(RecordingConfig(), tmp_path / "sub" / ".." / "store.sqlite")
    assert of_pipeline == (store.place,)
    store.write(Points("episode", TAGS, {"return": [1.0, 2.0], "cut": [False, False]}))
    episodes.write(report([1.0, 2.0], of_pipeline))
    episodes.write(report([5.0], places(RecordingConfig(), tmp_path / "other.sqlite")))
    stored(store)
    columns = page(store.path)
    assert sum(columns["episodes"]) == 3
    with contextlib.closing(StoreReader(store.path)) as reader:
        assert sorted(reader.select('SELECT "return" FROM episode')) == [(1.0,), (2.0,), (5.0,)]


def test_places_of_influxdb_are_its_address_and_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUXDB_V2_URL", "http://host:8086")
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "trading")
    assert places(RecordingConfig(), None) == ("http://host:8086/trading",)
    assert places(RecordingConfig(influx=False), None) == ()

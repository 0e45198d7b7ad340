"""A store that a version without `cut` and without the measurement `result` wrote, and that nobody may bring up to date, is read."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.newest_tenth import MOST_EPISODES, newest_count, newest_means
from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.points import Points
from policyserver.monitoring.store.export import Exporter, ExportSelection
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import EmbeddedStore

RUN = {"run": "r", "worker": "w"}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    path = tmp_path / "store.sqlite"
    store = EmbeddedStore(path)
    columns: dict[str, Any] = {"return": [1.0, 2.0, 900.0], "no_trade_return": [0.0, 0.5, None], "profit": [0.1, 0.2, -0.9]}
    store.write(Points("episode", RUN, columns))
    store.close(60.0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE episode DROP COLUMN cut")
        connection.execute("DROP TABLE result")
        connection.commit()
    return path


@pytest.mark.long
def test_its_cut_episodes_are_in_no_mean(older: Path) -> None:
    reader = StoreReader(older)
    assert (reader.newest_ids()["episode"], reader.newest_ids()["result"]) == (3, 0)
    assert reader.select('SELECT AVG("return") FROM whole_episode') == [(1.5,)]
    columns = dict(Feed(reader, PageSelection()).changes())["episodes"]["columns"]
    assert (columns["policy"], columns["profit"], columns["episodes"]) == ([2.0], [0.2], [2.0])
    reader.close()


@pytest.mark.long
def test_its_export_says_which_were_cut(older: Path) -> None:
    out = io.BytesIO()
    with Exporter.opened(older, ExportSelection(("episode", "result"))) as exporter:
        assert exporter.csv("episode", out) == 3
        assert exporter.csv("result", io.BytesIO()) == 0
    assert [row["cut"] for row in csv.DictReader(io.StringIO(out.getvalue().decode()))] == ["0", "0", "1"]


@pytest.mark.parametrize(
    ("episodes", "newest"),
    [(0, 0), (1, 1), (9, 1), (14, 1), (15, 2), (1000, 100), (10 * MOST_EPISODES, MOST_EPISODES), (10**7, MOST_EPISODES)],
)
def test_the_newest_tenth_is_one_at_least_and_bounded(episodes: int, newest: int) -> None:
    assert newest_count(episodes) == newest


def test_means_after_so_many_episodes_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3))
    values[rng.random((500, 3)) < 0.3] = np.nan
    values[:, 2] = np.nan
    counts = np.array([0, 1, 7, 30, 499, 500])
    plain = [[np.nan if np.isnan(rows).all() else np.nanmean(rows) for rows in values[n - newest_count(n) : n].T] for n in counts]
    assert newest_means(values, counts) == pytest.approx(np.array(plain), nan_ok=True)
    assert newest_means(values[440:], counts[4:], 440) == pytest.approx(np.array(plain[4:]), nan_ok=True)

"""What a viewer costs does not depend on how many episodes a run has had, and what the page shows of them stays right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.page import finished_episodes, running_episodes
from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.finished_episodes import FinishedEpisodes
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.store import episode_tags, tables
from policyserver.monitoring.store.reader import StoreReader

BEGIN_NS = 1_700_000_000 * 10**9
WIDTH_NS = 2 * 10**9
PER_S = 50
MOST = 65_536  # episodes that a mean is over


@pytest.fixture
def reader(path: Path) -> Iterator[StoreReader]:
    reader = StoreReader(path)
    yield reader
    reader.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of a 128th."""
    monkeypatch.setattr("policyserver.monitoring.newest_tenth.MOST_EPISODES", MOST // 128)
    for name, value in {
        "MOST_HELD": 2048,
        "LEFT": 1536,
        "MOST_READ": 4096,
        "_SAMPLES": 64,
        "_SAMPLE_ROWS": 32,
        "_ROWS_AT_ONCE": 256,
    }.items():
        monkeypatch.setattr(finished_episodes, name, value, raising=False)


def write(path: Path, numbers: range | list[int], policy: str = "PPO", run: str = "r") -> None:
    """Record episodes, each with a number that says when it ended; their returns rise from 0, with a spread of 200."""
    statement = (
        'INSERT INTO episode (time_ns, run, policy, worker, episode, "return", profit, length, cut) VALUES (?, ?, ?, ?, ?, ?, ?, 9, 0)'
    )
    rows = [
        (BEGIN_NS + number * 10**9 // PER_S, run, policy, "w", f"{number}", number / 100 + number * 7919 % 200, number / 1000)
        for number in numbers
    ]
    with closing(tables.connect(path)) as connection:
        connection.execute("BEGIN")
        connection.executemany(statement, rows)
        connection.execute("COMMIT")


def curves(widths: int = 1, **selection: Any) -> FinishedEpisodes:
    return FinishedEpisodes(PageSelection(**selection), "r", widths * WIDTH_NS, BEGIN_NS)


def plain(monkeypatch: pytest.MonkeyPatch, reader: StoreReader, upto: int, widths: int = 1) -> dict[str, np.ndarray]:
    """Columns of a viewer without bounds."""
    with monkeypatch.context() as patch:
        for name in ("MOST_HELD", "MOST_READ"):
            patch.setattr(finished_episodes, name, 10**9)
        every = curves(widths)
        every.read(reader, upto)
        return every.columns(0)


@pytest.mark.long
@pytest.mark.usefixtures("small")
def test_a_viewer_of_a_run_that_grows_long_holds_a_bounded_number_and_shows_the_same(
    path: Path, reader: StoreReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = curves()
    shown: dict[float, list[float]] = {}
    for first in range(0, 8000, 500):
        write(path, range(first, first + 500))
        since = viewer.read(reader, first + 500)
        assert since is not None
        columns = viewer.columns(since)
        shown |= {time_s: [columns[name][at] for name in columns] for at, time_s in enumerate(columns["time_s"].tolist())}
    assert sum(len(bucket.episodes) for bucket in viewer._buckets.values()) <= 2048
    expected = plain(monkeypatch, reader, 8000)
    whole = viewer.columns(0)
    assert list(whole) == list(expected)
    for at, (name, values) in enumerate(expected.items()):
        assert whole[name] == pytest.approx(values, nan_ok=True), name
        assert [row[at] for row in shown.values()] == pytest.approx(values, nan_ok=True), f"{name}, as it was sent"
    viewer.coarsen()
    coarse = viewer.columns(0)
    assert coarse["episodes"].sum() == 8000
    assert coarse["policy"] == pytest.approx(expected["policy"][1::2])
    for name in ("return_p05", "return_p50", "return_p95"):
        assert coarse[name] == pytest.approx((expected[name][::2] + expected[name][1::2]) / 2, abs=4.0), name


@pytest.mark.long
@pytest.mark.usefixtures("small")
def test_a_new_viewer_of_a_long_run_reads_a_bounded_number_and_the_newest_are_exact(
    path: Path, reader: StoreReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policyserver.monitoring.store.reader._OUT_OF_ORDER_ROWS", 100)
    write(path, range(20_000))
    select, read = reader.select, []

    def counted(*arguments: Any) -> list[Any]:
        rows = select(*arguments)
        read.append(len(rows))
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(reader, "select", counted)
        viewer = curves(widths=4)
        viewer.read(reader, 20_000)
    assert max(read) <= 256
    assert sum(read) < 2 * 2048 + 100 + 512
    expected, got = plain(monkeypatch, reader, 20_000, widths=4), viewer.columns(0)
    assert got["time_s"].tolist() == expected["time_s"].tolist()
    newest = -(2048 - 512) // (4 * PER_S * WIDTH_NS // 10**9) + 1
    for name, values in expected.items():
        assert got[name][newest:] == pytest.approx(values[newest:], nan_ok=True), name
    assert got["episodes"].sum() == pytest.approx(20_000, rel=0.02)
    assert got["policy"][5:] == pytest.approx(expected["policy"][5:], abs=15.0), "estimated from every tenth"
    assert got["profit"][5:] == pytest.approx(expected["profit"][5:], abs=0.2)
    write(path, range(20_000, 20_300))
    viewer.read(reader, 20_300)
    expected, got = plain(monkeypatch, reader, 20_300, widths=4), viewer.columns(0)
    assert got["policy"][newest:] == pytest.approx(expected["policy"][newest:])


@pytest.mark.long
@pytest.mark.usefixtures("small")
def test_episodes_that_are_recorded_late_are_counted(path: Path, reader: StoreReader) -> None:
    late = [number for number in range(8000) if number % 40 == 3]
    viewer = curves()
    write(path, [number for number in range(8000) if number % 40 != 3])
    viewer.read(reader, 7800)
    write(path, late)
    assert viewer.read(reader, 8000) == BEGIN_NS // WIDTH_NS
    columns = viewer.columns(0)
    assert columns["episodes"].tolist() == [100.0] * 80
    assert np.isfinite(columns["policy"]).all()


@pytest.mark.usefixtures("small")
def test_a_range_lets_go_of_what_is_before_it(path: Path, reader: StoreReader) -> None:
    write(path, range(3000))
    viewer = curves(range_s=20)
    viewer.read(reader, 3000)
    viewer.forget(BEGIN_NS // WIDTH_NS + 25)
    assert viewer.columns(0)["episodes"].tolist() == [100.0] * 5
    write(path, range(3000, 3100))
    viewer.read(reader, 3100)
    assert viewer.columns(0)["profit"][-1] == pytest.approx(np.arange(3040, 3100).mean() / 1000), "a tenth of the 600 that are left"


def test_tags_are_looked_for_in_a_bounded_number_of_rows(path: Path, reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_tags, "ROWS_AT_ONCE", 100)
    write(path, range(10), policy="older")
    write(path, range(10, 250))
    assert reader.episode_tags("r")["policy"] == ["PPO"]
    assert reader.episode_tags("r")["policy"] == ["PPO"]
    assert reader.episode_tags("r")["policy"] == ["PPO", "older"]
    write(path, range(250, 260), policy="newer")
    assert reader.episode_tags("r")["policy"] == ["PPO", "newer", "older"]
    seen: list[Any] = []
    select = reader.select

    def noted(statement: str, given: Any = ()) -> list[Any]:
        seen.append(given)
        return select(statement, given)

    monkeypatch.setattr(reader, "select", noted)
    reader.episode_tags("r")
    assert not [given for given in seen if "after" in given], "nothing is looked at twice"


def test_the_tags_of_a_bounded_number_of_runs_are_remembered(path: Path, reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_tags, "MOST_RUNS", 2)
    write(path, range(3), run="r")
    for run in ("r", "no such run", "nor this", "r"):
        assert reader.episode_tags(run)["policy"] == (["PPO"] if run == "r" else [])
    assert list(reader._episode_tags._runs) == ["nor this", "r"]


def test_no_query_of_a_new_viewer_has_many_rows(path: Path, reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished_episodes, "_ROWS_AT_ONCE", 500, raising=False)
    monkeypatch.setattr(running_episodes, "_ROWS_AT_ONCE", 500, raising=False)
    write(path, range(2000))
    select, most = reader.select, []

    def counted(*arguments: Any) -> list[Any]:
        rows = select(*arguments)
        most.append(len(rows))
        return rows

    monkeypatch.setattr(reader, "select", counted)
    shown = dict(Feed(reader, PageSelection()).changes())
    assert sum(shown["episodes"]["columns"]["episodes"]) == 2000
    assert max(most) <= 500

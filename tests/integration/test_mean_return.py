"""A run whose end cuts episodes says the same mean return everywhere: summary, terminal, page, Grafana and export."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.snapshot import SnapshotTaker
from policyserver.pipelines.summary import Summary, summarise
from tests.commands import run_here
from tests.recorded_run import CountingDouble, record_run
from tests.services import InfluxServer, MissingService

ROOT = Path(__file__).parents[2]
RUN = "20261121T032235Z-seed0"
STEPS = 45_000


@dataclass
class Run:
    """A run that has ended, and where it was recorded."""

    pipeline: Pipeline
    watch: ServerWatch
    store: Path
    influx: InfluxServer

    @property
    def summary(self) -> Summary:
        return summarise(self.pipeline, self.watch, Ledger(0, 0.0), episodes_leaked=0, server_restarts=0)

    def exported(self, measurement: str = "episode") -> list[dict[str, str]]:
        """Return the episodes, or other points, as `policy-monitor export` writes them."""
        done = run_here("policy-monitor", "export", "--store", str(self.store), "--format", "csv", "--measurement", measurement)
        return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, missing_service: MissingService) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("mean")
    influx = InfluxServer(folder / "influx", missing_service)
    influx.start()
    store = folder / "store.sqlite"
    sink = MultiSink([EmbeddedStore(store), InfluxSink(InfluxConfig(influx.url, influx.bucket, folder / "spool"))])
    pipeline, _ = record_run(sink, RUN, STEPS)
    assert sink.flush(90.0)
    sink.close(10.0)
    yield Run(pipeline, ServerWatch(CountingDouble(), MultiSink(), pipeline.tags), store, influx)
    influx.kill()


def page_columns(store: Path) -> dict[str, list[Any]]:
    """Return the columns of the page's finished episodes."""
    reader = StoreReader(store)
    try:
        columns: dict[str, list[Any]] = dict(Feed(reader, PageSelection(run=RUN)).changes())["episodes"]["columns"]
        return columns
    finally:
        reader.close()


def grafana(influx: InfluxServer, title: str) -> list[dict[str, Any]]:
    """Return what the panel of that title shows."""
    rewards = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "rewards.json").read_text(encoding="utf-8"))
    (panel,) = [panel for panel in rewards["panels"] if panel["title"] == title]
    query = panel["targets"][0]["query"].replace("$timeFilter", "time >= now() - 1h").replace("$__interval", "1h")
    return influx.query(re.sub(r"\$(run|policy|symbol)\b", ".*", query))


@pytest.mark.slow
def test_whole_episodes_and_cut_ones_are_told_apart(run: Run) -> None:
    rows = run.exported()
    assert len(rows) > 150
    concurrent = run.pipeline.config.episodes.concurrent
    assert 0 < sum(row.get("cut") == "1" for row in rows) <= concurrent, "the end of the run cuts what is open"
    whole = {int(row["length"]) for row in rows if row["cut"] == "0" and row["ended"] == "truncated"}
    assert whole == {max(int(row["length"]) for row in rows)}
    assert [row["cut"] == "0" for row in rows] == [row["no_trade_return"] != "" for row in rows], "baselines are of whole ones"


@pytest.mark.slow
def test_the_mean_return_is_the_same_everywhere(run: Run) -> None:
    whole = [float(row["return"]) for row in run.exported() if row["no_trade_return"]]
    mean = float(np.mean(whole[len(whole) - round(0.1 * len(whole)) :]))
    assert run.summary.return_mean == pytest.approx(mean, rel=1e-9)
    assert SnapshotTaker(run.pipeline, run.watch).take().return_mean == pytest.approx(mean, rel=1e-9), "terminal"
    assert SnapshotTaker(run.pipeline, run.watch).take().return_curve[-1] == pytest.approx(mean, rel=1e-9), "terminal, over time"
    assert page_columns(run.store)["policy"][-1] == pytest.approx(mean, rel=1e-5), "page"
    (shown,) = grafana(run.influx, "Mean return")
    assert shown["last"] == pytest.approx(mean, rel=1e-9), "Grafana"
    assert float(run.exported("result")[-1]["return_mean"]) == pytest.approx(mean, rel=1e-9), "export"


@pytest.mark.slow
def test_profit_and_baselines_are_means_of_the_same_episodes(run: Run) -> None:
    columns, summary = page_columns(run.store), run.summary
    for column, expected in (
        ("no_trade", summary.no_trade_mean),
        ("random", summary.random_mean),
        ("profit", summary.profit_mean),
        ("costs", summary.costs_mean),
    ):
        assert columns[column][-1] == pytest.approx(expected, rel=1e-5), column
    assert grafana(run.influx, "Profit and costs")[-1]["last"] == pytest.approx(summary.profit_mean, rel=1e-9)
    assert grafana(run.influx, "Mean return of no trade")[0]["last"] == pytest.approx(summary.no_trade_mean, rel=1e-9)


@pytest.mark.slow
def test_grafana_counts_whole_episodes(run: Run) -> None:
    whole = sum(row["no_trade_return"] != "" for row in run.exported())
    assert [row["count"] for row in grafana(run.influx, "Episodes")] == [whole]


def test_points_of_before_there_was_the_field_are_read_by_their_baselines(running_influx: InfluxServer, tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    sink = MultiSink([EmbeddedStore(store), InfluxSink(InfluxConfig(running_influx.url, running_influx.bucket, tmp_path / "spool"))])
    returns, baseline = [1.0, 2.0, 3.0, 400.0], [0.0, -1.0, 1.0, None]
    sink.write(Points("episode", {"run": RUN, "worker": "w"}, {"return": returns, "length": [9, 9, 9, 2], "no_trade_return": baseline}))
    assert sink.flush(90.0)
    sink.close(30.0)
    assert page_columns(store)["policy"] == [3.0]
    assert [row["count"] for row in grafana(running_influx, "Episodes")] == [3]
    assert [row["mean"] for row in grafana(running_influx, "Length of an episode")] == [9.0]
    run = Run(None, None, store, running_influx)  # type: ignore[arg-type]
    assert [row["cut"] for row in run.exported()] == ["0", "0", "0", "1"]

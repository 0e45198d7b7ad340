"""A run on files: every symbol is played, and what its figures are of is said in the summary and recorded for the page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.summary import Summary, summarise
from tests.pipelines.pipeline_harness import WAIT_S, play
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_prices import FIRST_BAR_S, fair_game, file_config, write_bars


class SilentService:
    """A server that has nothing to say."""

    def stats_by_endpoint(self) -> dict[str, Any]:
        return {}


def summary_of(pipeline: Pipeline) -> Summary:
    watch = ServerWatch(SilentService(), pipeline._episode_node._recorder.sink, pipeline.tags)
    return summarise(pipeline, watch, Ledger(0, 0.0), episodes_leaked=None, server_restarts=0)


def two_files(folder: Path) -> PipelineConfig:
    files = [write_bars(folder / f"{name}.csv", fair_game(bars, seed=bars)) for name, bars in (("AAA", 200), ("BBB", 500))]
    return file_config(*files, concurrent=4, steps=400, bars=20, warmup=10, regressor=RegressorConfig())


@pytest.mark.long
def test_the_summary_says_that_results_on_files_are_in_sample_and_names_the_span(tmp_path: Path) -> None:
    pipeline, _, book = play(two_files(tmp_path))
    summary = summary_of(pipeline)
    table, keys = summary.table(), json.loads(summary.to_json())
    assert "In-sample: the policy learns from the bars that its returns are of (AAA, BBB, 2020-01-01 00:00 to 2020-01-01 08:19" in table
    assert "700 bars" in table
    assert "(every bar played, once)" in table
    assert (keys["in_sample"], keys["first_bar"], keys["last_bar"]) == (True, "2020-01-01 00:00", "2020-01-01 08:19")
    recorded = {row["bars"]: row for row in book.rows["prices"]}
    assert recorded.keys() == {200, 500}
    assert recorded[500]["last_bar_s"] == FIRST_BAR_S + 60 * 499
    assert all(row["recorded"] and row["trained_on"] for row in recorded.values())


@pytest.mark.long
def test_a_figure_that_is_not_known_is_a_dash_and_a_name_with_nan_in_it_stays_whole(tmp_path: Path) -> None:
    known = summary_of(play(two_files(tmp_path))[0])
    summary = dataclasses.replace(
        known, prices_note="In-sample (binance, finance)", return_mean=math.nan, return_stderr=math.nan, regressor_skill=-math.nan
    )
    table = summary.table()
    assert "In-sample (binance, finance)" in table
    which = f"the newest {known.counted_episodes} of {known.whole_episodes} whole episodes"
    assert f"return            - ± -   (of {which})" in table
    assert "regressor skill   - ± " in table


@pytest.mark.long
def test_a_run_that_does_not_train_is_not_called_in_sample(tmp_path: Path) -> None:
    settings = two_files(tmp_path)
    settings = dataclasses.replace(settings, episodes=dataclasses.replace(settings.episodes, training_enabled=False))
    summary = summary_of(play(settings)[0])
    assert not summary.in_sample
    assert "out of sample only if the policy has not learnt from them in another run" in summary.table()


@pytest.mark.long
def test_simulated_prices_need_no_note() -> None:
    pipeline, _, book = play(PipelineConfig(episodes=dataclasses.replace(PipelineConfig().episodes, steps=400)))
    summary = summary_of(pipeline)
    assert (summary.in_sample, summary.first_bar, summary.prices_note) == (False, None, "")
    assert f"the newest {summary.counted_forecasts} of {summary.forecasts} steps" in summary.table()
    assert summary.counted_forecasts == round(0.1 * summary.forecasts)
    assert [row["recorded"] for row in book.rows["prices"]] == [False] * 4


@pytest.mark.long
def test_the_page_says_that_results_on_files_are_in_sample_and_names_the_span(tmp_path: Path) -> None:
    settings, store = two_files(tmp_path), EmbeddedStore(tmp_path / "store.sqlite")
    with Pipeline(settings, PolicyDouble(), store).running() as pipeline:
        assert pipeline.wait(WAIT_S)
    store.close(30.0)
    with closing(StoreReader(store.path)) as reader:
        shown = json.dumps(list(Feed(reader, PageSelection()).changes()))
    assert "In-sample: the policy learns from the bars that its returns are of (AAA, BBB, 2020-01-01 00:00 to 2020-01-01 08:19" in shown


@pytest.mark.long
@pytest.mark.parametrize("concurrent", [1, 2, 5])
def test_every_symbol_has_its_turn_where_there_are_more_of_them_than_concurrent_episodes(concurrent: int) -> None:
    symbols = ("A", "B", "C")
    default = PipelineConfig()
    settings = dataclasses.replace(
        default,
        prices=dataclasses.replace(default.prices, symbols=symbols, bars_per_episode=5, warmup_bars=8),
        episodes=dataclasses.replace(default.episodes, concurrent=concurrent, steps=300),
    )
    service = PolicyDouble()
    play(settings, service)
    played = Counter(name.split("-")[0] for name in service.episodes)
    assert played.keys() == set(symbols)
    assert max(played.values()) - min(played.values()) <= concurrent

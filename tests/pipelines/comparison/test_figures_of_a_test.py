"""A test's figures are of all its whole episodes, or of an even part, and say of how many; while a policy learns, of the newest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policyserver.monitoring.store.reader import Ledger
from policyserver.monitoring.tail import Tail
from policyserver.pipelines.comparison import kept_episodes
from policyserver.pipelines.comparison.kept_episodes import NEWEST_EPISODES, EpisodeSample, KeptEpisode, KeptEpisodes
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.episode_figures import EpisodeFigures
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.pipelines.run import connect, source_of
from policyserver.pipelines.run_state import EPISODE_COLUMNS, EPISODES_KEPT, RunState
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.summary import Summary, summarise
from tests.pipelines.pipeline_harness import play
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_prices import fair_game, write_bars


def config_of(folder: Path, **split: object) -> PipelineConfig:
    """300 windows for testing: of a price that falls, and rises in the newest part."""
    drift = np.exp(np.cumsum(np.where(np.arange(4_100) < 3_700, -1e-4, 1e-3)))
    write_bars(folder / "AAA.csv", fair_game(4_100, seed=1, volatility=1e-4) * drift)
    prices = PricesConfig(
        recorded=CatalogConfig((str(folder / "AAA.csv"),)),
        bars_per_episode=10,
        warmup_bars=40,
        split=SplitConfig(train_fraction=0.25, **split),  # type: ignore[arg-type]
        windows=WindowsConfig(order="sequential"),
    )
    episodes = PlayedEpisodesConfig(concurrent=16, training_enabled=True if "learns_on_test" in split else None)
    config = PipelineConfig(worker_number=0, episodes=episodes, prices=prices)
    return replace(config, episodes=replace(config.episodes, count=source_of(config).n_windows))


def summary_of(pipeline: Pipeline) -> Summary:
    with connect(pipeline.config) as client:
        watch = ServerWatch(client, pipeline._recorder.sink, {})
        return summarise(pipeline, watch, Ledger(0, 0.0), episodes_leaked=None, server_restarts=0)


@pytest.mark.long
@pytest.mark.parametrize("split", [{"play": "test"}, {"play": "test", "learns_on_test": True}])
def test_a_test_is_measured_by_all_of_its_windows(split: dict[str, object], tmp_path: Path) -> None:
    config = config_of(tmp_path, **split)
    pipeline, _, book = play(config, PolicyDouble(lambda observations: np.full(len(observations), 2)))
    profits = np.array([row["profit"] for row in book.rows["episode"]])
    assert len(profits) > NEWEST_EPISODES
    summary = summary_of(pipeline)
    assert (summary.counted_episodes, summary.whole_episodes) == (len(profits),) * 2
    assert summary.profit_mean == pytest.approx(profits.mean())
    returns = np.array([row["return"] for row in book.rows["episode"]])
    assert (summary.return_mean, summary.return_stderr) == pytest.approx((returns.mean(), returns.std(ddof=1) / len(returns) ** 0.5))
    both = profits + np.array([row["costs"] for row in book.rows["episode"]])
    assert summary.profit_plus_costs_stderr == pytest.approx(both.std(ddof=1) / len(both) ** 0.5)
    assert summary.comparison is not None
    assert (summary.comparison.episodes, summary.comparison.whole_episodes) == (len(profits),) * 2
    assert {point.multiple: point.profit_mean for point in summary.comparison.fee_sweep}[1.0] == pytest.approx(profits.mean())
    assert summary.table().count(f"of all {len(profits)} whole episodes") == 2


@pytest.mark.long
def test_while_the_policy_learns_the_newest_are_measured_and_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, play="train")
    pipeline, _, book = play(replace(config, episodes=replace(config.episodes, count=400)))
    summary = summary_of(pipeline)
    assert (summary.counted_episodes, summary.whole_episodes) == (40, 400)
    newest = [row["profit"] for row in book.rows["episode"]][-40:]
    assert summary.profit_mean == pytest.approx(np.mean(newest))
    table = summary.table()
    assert "(of the newest 40 of 400 whole episodes)" in table
    assert f"of the newest {NEWEST_EPISODES} of 400 whole episodes: median" in table


@pytest.fixture(scope="module")
def pattern() -> KeptEpisode:
    (episode,) = make_source(PricesConfig(bars_per_episode=10, warmup_bars=40), 0).episodes([0])
    return KeptEpisode(episode, np.zeros(10, dtype=np.int64))


def numbered(pattern: KeptEpisode, numbers: range) -> list[KeptEpisode]:
    return [replace(pattern, episode=replace(pattern.episode, number=number)) for number in numbers]


@pytest.mark.long
@pytest.mark.parametrize("batch", [1, 16, 3_000])
def test_what_is_too_much_to_play_again_is_thinned_out_evenly(batch: int, pattern: KeptEpisode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_episodes, "MOST_STEPS", 3_000)
    kept = KeptEpisodes(of_test=True)
    for first in range(700, 3_700, batch):
        kept.extend(numbered(pattern, range(first, min(first + batch, 3_700))))
        assert len(kept._spread.episodes) <= 375 + batch, "memory is bounded"
    sample = kept.sample()
    assert (len(sample.episodes), sample.whole) == (300, 3_000)
    assert sample.text() == "300 of 3,000 whole episodes, spread evenly"
    numbers = np.array([each.episode.number for each in sample.episodes])
    assert np.diff(numbers).min() > 0
    assert np.diff(numbers).max() <= 21, "no gap is longer than twice the mean"
    for n_symbols in (2, 3, 4, 5, 8, 13, 16):
        counts = np.bincount(numbers % n_symbols, minlength=n_symbols)
        assert counts.max() <= 1.2 * 300 / n_symbols + 1, f"no symbol of {n_symbols} is preferred"


def test_all_tests_together_have_an_equal_share_of_each(pattern: KeptEpisode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has 1,000 windows, of which it could keep 300; the second 100, all of which it kept."""
    monkeypatch.setattr(kept_episodes, "MOST_STEPS", 3_000)
    samples = []
    for numbers in (range(1_000), range(5_000, 5_100)):
        kept = KeptEpisodes(of_test=True)
        kept.extend(numbered(pattern, numbers))
        samples.append(kept.sample())
    assert [len(sample.episodes) for sample in samples] == [300, 100]
    together = EpisodeSample.together(samples).spread()
    first = sum(each.episode.number < 1_000 for each in together.episodes)
    assert [first, len(together.episodes) - first] == pytest.approx([300 / 1.1, 30 / 1.1], abs=3)
    assert together.whole == 1_100
    assert EpisodeSample.together([]).text() == "all 0 whole episodes"


def test_episodes_without_kept_actions_are_counted(pattern: KeptEpisode) -> None:
    kept = KeptEpisodes(of_test=True)
    kept.extend([pattern, replace(pattern, actions=np.zeros(0, dtype=np.int64))])
    assert kept.sample().text() == "1 of 2 whole episodes, spread evenly"


@pytest.mark.long
def test_the_means_of_a_test_are_of_all_its_episodes_however_many_there_are() -> None:
    run, rng = RunState(1, None, of_test=True), np.random.default_rng(0)
    rows = rng.normal(1.0, rng.uniform(0.1, 3.0, len(EPISODE_COLUMNS)), (EPISODES_KEPT + 1_000, len(EPISODE_COLUMNS)))
    for batch in np.array_split(rows, 7):
        run.add_results(batch)
    found = run.figures()
    assert found.count == len(rows)
    for place, name in enumerate(EPISODE_COLUMNS):
        assert found.mean(name) == pytest.approx(rows[:, place].mean(), rel=1e-12)
        assert found.stderr(name) == pytest.approx(rows[:, place].std(ddof=1) / len(rows) ** 0.5, rel=1e-12)
    assert found.mean("profit", "costs") == pytest.approx(rows[:, 3:5].sum(axis=1).mean(), rel=1e-12)
    assert found.stderr("profit", "costs") == pytest.approx(rows[:, 3:5].sum(axis=1).std(ddof=1) / len(rows) ** 0.5, rel=1e-12)


def test_without_episodes_nothing_is_known_and_an_unknown_figure_stays_unknown() -> None:
    nothing = EpisodeFigures.of(Tail(("a", "b"), 10).newest(3))
    assert np.isnan([nothing.mean("a"), nothing.stderr("a")]).all()
    one = nothing.plus(EpisodeFigures.of({"a": np.array([1.0]), "b": np.array([np.nan])}))
    assert one.mean("a") == 1.0
    assert np.isnan([one.stderr("a"), one.mean("b"), one.mean("a", "b")]).all()
    two = one.plus(EpisodeFigures.of({"a": np.array([3.0]), "b": np.array([1.0])}))
    assert (two.mean("a"), two.stderr("a")) == (2.0, 1.0)
    assert np.isnan([two.mean("b"), two.stderr("b"), two.stderr("a", "b")]).all()

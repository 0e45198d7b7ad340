"""A run on windows of recorded bars: frames, the test part, times, threads, and one policy that goes from one run to the next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.store.reader import Ledger
from policyserver.pipelines.config import NodesConfig, PipelineConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.vector_env import TradingVectorEnv
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.run import source_of
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.summary import Summary, summarise
from tests.pipelines.pipeline_harness import Book, play
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_market import minutes, pipeline, recorded, write_symbol


class SilentService:
    """A server that has nothing to say."""

    def stats_by_endpoint(self) -> dict[str, Any]:
        return {}


class TrainedDouble(PolicyDouble):
    """Also keeps of which episodes the server may learn."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: dict[str, bool] = {}

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        self.trained |= dict.fromkeys(episodes, training_enabled)
        return super().start_episodes(episodes, training_enabled)


def summary_of(played: Pipeline, book: Book) -> Summary:
    watch = ServerWatch(SilentService(), book, played.tags)
    return summarise(played, watch, Ledger(0, 0.0), episodes_leaked=None, server_restarts=0)


def follow(observations: Any) -> Any:
    """Buy after a rise, else sell."""
    return 2 * (observations[:, 0] > 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two symbols of ten-minute bars over six days."""
    for place, name in enumerate(("AAA", "BBB")):
        write_symbol(tmp_path / f"{name}.csv", minutes(6), place)
    return tmp_path


def prices(folder: Path, **settings: Any) -> PricesConfig:
    windows = settings.get("windows")
    length = {} if windows is not None and windows.length else {"bars_per_episode": 30}
    return PricesConfig(recorded=recorded(folder), **{**length, "warmup_bars": 40} | settings)


def by_episode(book: Book, measurement: str, *columns: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each whole episode, the numbers of its bars in order."""
    whole = {row["episode"] for row in book.rows["episode"] if not row["cut"]}
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in whole}
    for row in book.rows[measurement]:
        if row["episode"] in whole:
            found[row["episode"]].append(tuple(row[column] for column in columns))
    return {name: sorted(rows) for name, rows in found.items()}


@pytest.mark.long
@pytest.mark.parametrize("skip_frame", [1, 7])
def test_the_policy_is_asked_each_nth_bar_and_hears_the_sum_of_the_rewards(folder: Path, skip_frame: int) -> None:
    config = pipeline(prices(folder, skip_frame=skip_frame))
    ran, service, book = play(config, PolicyDouble(follow))
    steps = book.rows["step"]
    told = [reward for heard in service.episodes.values() for reward in heard.rewards]
    assert len(steps) == ran.run.steps == len(told)
    assert math.fsum(told) == pytest.approx(ran.reward_sum, abs=1e-9) == pytest.approx(math.fsum(row["reward"] for row in steps), abs=1e-9)
    source = source_of(config)
    for name, rows in by_episode(book, "step", "bar", "bar_time_s", "reward", "fee").items():
        episode = source.episodes([int(name.rpartition("-")[2])])[0]
        assert [bar for bar, *_ in rows] == list(range(0, 30, skip_frame))
        assert [time for _, time, *_ in rows] == (episode.bars.time_ns[39:69:skip_frame] * 1e-9).tolist()
        ended = next(row for row in book.rows["episode"] if row["episode"] == name)
        assert (ended["length"], ended["first_bar_s"], ended["last_bar_s"]) == (len(rows), rows[0][1], episode.last_ns * 1e-9)
        assert math.fsum(reward for _, _, reward, _ in rows) == pytest.approx(ended["return"], abs=1e-9)
        fees = math.fsum(row["fee"] for row in book.rows["order"] if row["episode"] == name)
        assert math.fsum(fee for *_, fee in rows) == pytest.approx(fees, abs=1e-9)


@pytest.mark.long
def test_a_pipeline_plays_what_the_vector_env_plays(folder: Path) -> None:
    rules = RulesConfig(observers=("returns", "position"))
    config = pipeline(prices(folder, skip_frame=4, decide="20min"), rules, concurrent=6, steps=60)
    _, _, book = play(config, PolicyDouble(follow))
    env = TradingVectorEnv(source_of(config), Rules.of(rules), 6)
    observations, _ = env.reset(seed=0)
    returns, going = np.zeros(6), np.ones(6, dtype=np.bool_)
    while going.any():
        observations, rewards, terminated, truncated, _ = env.step(follow(observations))
        returns += np.where(going, rewards, 0.0)
        going &= ~(terminated | truncated)
    first = {row["episode"]: row["return"] for row in book.rows["episode"] if int(row["episode"].rpartition("-")[2]) < 6}
    assert [first[name] for name in sorted(first, key=lambda name: int(name.rpartition("-")[2]))] == pytest.approx(
        returns.tolist(), abs=1e-9
    )


@pytest.mark.long
def test_nothing_is_learnt_on_the_test_part_and_every_record_names_it(folder: Path) -> None:
    split = SplitConfig(test_from="2024-01-05", play="test")
    config = pipeline(prices(folder, split=split, windows=WindowsConfig(order="sequential")))
    ran, service, book = play(config, TrainedDouble())
    assert isinstance(service, TrainedDouble)
    assert set(service.trained.values()) == {False}
    assert {row["span"] for row in book.rows["episode"]} == {"test"}
    assert all(row["first_bar_s"] >= 1_704_412_800 - 600 for row in book.rows["episode"])
    recorded_prices = book.rows["prices"]
    assert {(row["span"], row["trained_on"], row["bars"]) for row in recorded_prices} == {("test", False, 289)}
    summary = summary_of(ran, book)
    assert summary.spans == {"test": len(book.rows["episode"])}
    assert not summary.in_sample
    assert summary.windows == ("test: AAA: 9 windows, 280 left out: end of the span 29, overlap 251", *summary.windows[1:])
    table = summary.table()
    assert "Test part: the policy does not learn (test: AAA, BBB, 2024-01-05 to 2024-01-07, 578 bars)" in table
    assert f"test: {len(book.rows['episode']):,} episodes" in table
    assert "280 left out: end of the span 29, overlap 251" in table


@pytest.mark.long
def test_a_run_that_walks_forward_counts_its_folds(folder: Path) -> None:
    split = SplitConfig(folds=2, train_fraction=0.5)
    windows = WindowsConfig(order="walk_forward", fold_episodes=4)
    ran, service, book = play(pipeline(prices(folder, split=split, windows=windows)), TrainedDouble())
    assert isinstance(service, TrainedDouble)
    assert set(service.trained.values()) == {True}
    spans = summary_of(ran, book).spans
    assert spans["train 0"] == 4
    assert spans["train 1"] > 4
    assert {row["span"] for row in book.rows["prices"]} == {"train 0", "train 1"}


@pytest.mark.long
def test_threads_and_a_resume_change_no_window(folder: Path) -> None:
    config = pipeline(prices(folder, skip_frame=3, windows=WindowsConfig(length="4h", gap_limit="10min")), concurrent=5, steps=300)
    busy = NodesConfig(2, 3, 3, 2, 2, 3, blocks=5)
    runs = [play(each, PolicyDouble(follow)) for each in (config, dataclasses.replace(config, nodes=busy))]
    books = [book for _, _, book in runs]
    for book, (pipeline_of, *_) in zip(books, runs, strict=True):
        assert len(book.rows["prices"]) == 2
        assert sorted(each.symbol for each in pipeline_of.run.recorded_prices) == ["AAA", "BBB"]
    one, many = (by_episode(book, "step", "bar", "bar_time_s", "price") for book in books)
    common = one.keys() & many.keys()
    assert len(common) >= 10
    assert all(one[name] == many[name] for name in common)
    later = dataclasses.replace(config, episodes=dataclasses.replace(config.episodes, first_round=2, steps=100))
    resumed = by_episode(play(later, PolicyDouble(follow))[2], "step", "bar", "bar_time_s", "price")
    assert min(int(name.rpartition("-")[2]) for name in resumed) == 10
    assert all(resumed[name] == one[name] for name in resumed.keys() & one.keys())
    assert resumed.keys() & one.keys()


@pytest.mark.long
def test_one_policy_learns_from_simulated_prices_and_then_from_recorded_ones(folder: Path) -> None:
    """A curriculum is two runs with one server: the second plays by the same rules, and so has the same spaces."""
    simulated = pipeline(PricesConfig(bars_per_episode=30, warmup_bars=40), steps=200)
    on_files = pipeline(prices(folder), steps=200)
    rules = [Rules.of(each.rules) for each in (simulated, on_files)]
    slots = [source_of(each).slots for each in (simulated, on_files)]
    assert rules[0].observation_space(slots[0]) == rules[1].observation_space(slots[1])
    service = TrainedDouble()
    play(simulated, service)
    synthetic = set(service.episodes)
    service.weights_seq_no = 40
    _, _, book = play(dataclasses.replace(on_files, episodes=dataclasses.replace(on_files.episodes, first_round=100)), service)
    assert set(service.episodes) > synthetic
    assert all(service.trained.values())
    assert {row["weights_seq_no"] for row in book.rows["step"]} == {40}, "the policy goes on where the first run left it"


@pytest.mark.long
def test_a_pipeline_without_split_records_none() -> None:
    ran, _, book = play(
        PipelineConfig(prices=PricesConfig(bars_per_episode=10, warmup_bars=40), episodes=pipeline(PricesConfig(), steps=50).episodes)
    )
    assert {row["span"] for row in book.rows["episode"]} == {None}
    assert summary_of(ran, book).spans == {}
    assert {row["bar_time_s"] for row in book.rows["step"]} <= {1_577_836_800.0 + 60 * bar for bar in range(40, 51)}


@pytest.mark.long
def test_a_portfolio_of_columns_and_symbols_that_wait_for_each_other_is_played_and_its_ledgers_agree(tmp_path: Path) -> None:
    for place, step in enumerate((10, 30)):
        times = minutes(4, step)
        write_symbol(tmp_path / f"S{place}.csv", times, place, [str(row % 50) for row in range(len(times))])
    observers = ("returns", "forecast", "staleness", {"name": "exogenous", "columns": ("news",)})
    rules = RulesConfig(actions="simplex_weights", observers=observers)
    on_files = PricesConfig(
        recorded=recorded(tmp_path, columns=("news",)), bars_per_episode=30, warmup_bars=40, symbols_per_episode=2, decide="all_symbols"
    )
    rng = np.random.default_rng(2)
    ran, service, book = play(pipeline(on_files, rules, steps=100), PolicyDouble(lambda seen: rng.uniform(-1, 1, (len(seen), 3))))
    told = [reward for heard in service.episodes.values() for reward in heard.rewards]
    assert (
        math.fsum(told)
        == pytest.approx(ran.reward_sum, abs=1e-9)
        == pytest.approx(math.fsum(row["reward"] for row in book.rows["step"]), abs=1e-9)
    )
    assert any(reward != 0 for reward in told)
    whole = {row["episode"] for row in book.rows["episode"] if not row["cut"]}
    for name in whole:
        seen = np.array(service.episodes[name].observations)
        ages, news = seen[1:-1, -4:-2], seen[:, -2:]
        assert not ages.any(), "asked when both have a bar of their own"
        assert (np.diff(news[1:-1, 1]) % 50 == 1).all(), "each question comes with the slow symbol's next bar"
    assert len(whole) >= 4

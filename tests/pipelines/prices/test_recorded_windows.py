"""Recorded episodes are the windows that the settings allow, of the part that is played; what leaves none is refused with counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from policyserver.common.settings import SettingsError
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.adjust import AdjustConfig
from policyserver.pipelines.market.resample import ResampleConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.vector_env import TradingVectorEnv
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.pipeline import reach_of
from policyserver.pipelines.prices import PricesConfig, PriceSource
from policyserver.pipelines.run import source_of
from tests.pipelines.recorded_market import minutes, pipeline, recorded, write_symbol


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two symbols of ten-minute bars: one of ten whole days, one of the hours of New York's exchange on weekdays, in UTC."""
    write_symbol(tmp_path / "AAA.csv", minutes(10), 1)
    weekdays = np.concatenate([minutes(5, begin=870, end=1260), minutes(5, first=7, begin=870, end=1260)])
    write_symbol(tmp_path / "BBB.csv", weekdays, 2)
    return tmp_path


def prices(folder: Path, **settings: Any) -> PricesConfig:
    windows = settings.get("windows")
    length = {} if windows is not None and windows.length else {"bars_per_episode": 20}
    return PricesConfig(recorded=recorded(folder), **{**length, "warmup_bars": 30} | settings)


def source(folder: Path, rules: RulesConfig | None = None, **settings: Any) -> PriceSource:
    return source_of(pipeline(prices(folder, **settings), rules))


def moments(of: PriceSource, count: int) -> list[str]:
    """Symbol, first action and number of bars of some episodes."""
    return [f"{each.symbols[0]} {str(np.datetime64(each.first_ns, 'ns'))[5:16]} {each.bars.n_steps}" for each in of.episodes(range(count))]


def test_a_day_each_on_weekdays_in_the_order_of_time(folder: Path) -> None:
    windows = WindowsConfig(length="1d", start="day", weekdays=("mon", "tue"), order="sequential")
    of = source(folder, windows=windows)
    assert of.notes == ("AAA: 3 windows, 6 left out: weekday 6", "BBB: 3 windows, 6 left out: end of the span 1, weekday 5")
    assert moments(of, 7) == [
        "BBB 01-01T21:00 39",  # the first action is taken at the close of the day before
        "AAA 01-02T00:00 144",
        "BBB 01-05T21:00 39",
        "AAA 01-08T00:00 144",
        "BBB 01-08T21:00 39",
        "AAA 01-09T00:00 144",
        "BBB 01-01T21:00 39",
    ]


@pytest.mark.long
def test_an_episode_has_the_bars_of_its_window_and_the_warm_up_before_it(folder: Path) -> None:
    of = source(folder, windows=WindowsConfig(gap_limit="10min"))
    whole = {each.symbols[0]: each.histories[each.symbols[0]].bars for each in of.episodes(range(2))}
    for each in of.episodes(range(200)):
        bars = whole[each.symbols[0]].slice(each.first_row, each.first_row + 50)
        assert each.bars.time_ns.tobytes() == bars.time_ns.tobytes()
        assert np.array_equal(each.bars.bars, bars.columns())
        assert each.bars.n_steps == 20
        assert np.diff(each.bars.time_ns[29:]).max() == 600 * 10**9
        assert each.histories[each.symbols[0]].window_bars == 50


@pytest.mark.long
def test_the_parts_of_a_split_are_played_apart_and_named(folder: Path) -> None:
    train = source(folder, split=SplitConfig(test_from="2024-01-08"))
    test = source(folder, split=SplitConfig(test_from="2024-01-08", play="test"))
    seen = {}
    for of, name in ((train, "train"), (test, "test")):
        played = of.episodes(range(400))
        assert {each.span for each in played} == {name}
        assert all(note.startswith(f"{name}: ") for note in of.notes)
        seen[name] = {(each.symbols, int(time)) for each in played for time in each.bars.time_ns}
        for each in played:
            history = each.histories[each.symbols[0]]
            assert history.played is not None
            assert history.played[0] <= each.first_row + 30 < each.first_row + 50 <= history.played[1]
    assert not seen["train"] & seen["test"]
    assert min(each.bars.time_ns[30] for each in test.episodes(range(400))) > np.datetime64("2024-01-08", "ns").astype(int)


@pytest.mark.long
def test_walking_forward_plays_fold_after_fold_or_the_one_that_is_named(folder: Path) -> None:
    split, walk = SplitConfig(folds=3, train_fraction=0.4), WindowsConfig(order="walk_forward", fold_episodes=10)
    train = source(folder, split=split, windows=walk)
    assert [each.span for each in train.episodes([0, 9, 10, 20, 500])] == ["train 0", "train 0", "train 1", "train 2", "train 2"]
    test = source(folder, split=replace(split, play="test"), windows=walk)
    spans = [each.span for each in test.episodes(range(200))]
    assert [name for place, name in enumerate(spans) if not place or spans[place - 1] != name][:4] == [
        "test 0",
        "test 1",
        "test 2",
        "test 0",
    ]
    second = source(folder, split=replace(split, play="test", fold=1))
    assert {each.span for each in second.episodes(range(50))} == {"test 1"}
    with pytest.raises(
        SettingsError, match=r'prices\.split\.fold: expected 0 to 2, or windows.order = "walk_forward" for one after another'
    ):
        source(folder, split=split)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"windows": WindowsConfig(weekdays=("sat",))},
            r"^prices\.windows: BBB: expected at least one window of 30 bars of warm-up and 20 bars, received 390 bars with 0 windows, "
            r"360 left out: end of the span 19, weekday 341 ",
        ),
        (
            {"windows": WindowsConfig(weekdays=("sat",), time_zone="Asia/Tokyo", hours="12:00-12:30", without_windows="skip")},
            r"^prices\.windows: expected at least one window, received 0 windows, 1,770 left out: end of the span 38, weekday .*, hours ",
        ),
        (
            {"windows": WindowsConfig(length="30d")},
            r"^prices\.windows: AAA: expected at least one window of 30 bars of warm-up and 30d, received 1440 bars with 0 windows",
        ),
        (
            {"split": SplitConfig(test_from="2024-01-10", play="test"), "bars_per_episode": 200},
            r"^prices\.windows: AAA: expected at least one window .* received 145 bars of test with 0 windows",
        ),
        ({"symbols_per_episode": 3}, r"^prices\.symbols_per_episode: expected at most the 2 symbols of the files, received 3"),
        ({"split": SplitConfig(test_from="2031-01-01")}, r"^prices\.split\.test_from: expected a time between 2024-01-01T00:10:00 and"),
    ],
)
def test_an_empty_selection_is_refused_with_key_expected_and_counts(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        source(folder, **settings)


def test_a_symbol_without_windows_is_left_out_if_that_is_meant(folder: Path) -> None:
    of = source(folder, windows=WindowsConfig(weekdays=("sat",), without_windows="skip"))
    assert {each.symbols for each in of.episodes(range(20))} == {("AAA",)}
    assert of.notes[1] == "BBB: 0 windows, 360 left out: end of the span 19, weekday 341"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": WindowsConfig(start="session")}, r'recorded\.files\.calendar: expected one with windows\.start = "session"'),
        (
            {"windows": WindowsConfig(order="walk_forward")},
            r"windows\.order: expected a split of which all folds are played .*, received no split",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        prices(folder, **settings)


@pytest.mark.parametrize("settings", [{"windows": WindowsConfig(length="1d")}, {"split": SplitConfig()}])
def test_windows_and_splits_are_of_recorded_prices(settings: dict[str, Any]) -> None:
    with pytest.raises(
        SettingsError, match=r"(windows\.length|split\.play): expected it with recorded prices alone, received .* with simulated ones"
    ):
        PricesConfig(**settings)


def test_training_is_off_on_the_test_part_by_itself(folder: Path) -> None:
    train, test = (pipeline(prices(folder, split=SplitConfig(play=side))) for side in ("train", "test"))
    assert (train.training_enabled, test.training_enabled, PipelineConfig().training_enabled) == (True, False, True)
    with pytest.raises(SettingsError, match=r"episodes\.training_enabled: expected false, or prices\.split\.learns_on_test = true"):
        pipeline(prices(folder, split=SplitConfig(play="test")), training_enabled=True)
    assert pipeline(prices(folder, split=SplitConfig(play="test", learns_on_test=True)), training_enabled=True).training_enabled


@pytest.mark.parametrize(
    ("observers", "expected"),
    [(("position",), 8), (("returns",), 33), (({"name": "returns", "volatility_bars": 60},), 61), (({"name": "window", "bars": 90},), 90)],
)
def test_the_warm_up_is_what_rules_and_forecaster_look_back_at(folder: Path, observers: tuple[Any, ...], expected: int) -> None:
    rules = RulesConfig(observers=observers)
    assert reach_of(Rules.of(rules)).window_bars == expected
    of = source(folder, rules, warmup_bars=0)
    (each,) = of.episodes([0])
    assert each.bars.warmup_bars == expected


@pytest.mark.long
def test_the_purge_covers_the_warm_up_and_the_longest_observer(folder: Path) -> None:
    rules, skip = RulesConfig(observers=({"name": "window", "bars": 90},)), WindowsConfig(without_windows="skip")
    for warmup in (0, 100):
        train = source(folder, rules, split=SplitConfig(test_from="2024-01-08", embargo_bars=7), warmup_bars=warmup, windows=skip)
        history = train.episodes([0])[0].histories["AAA"]
        assert history.played is not None
        cut = int(np.searchsorted(history.bars.time_ns, np.datetime64("2024-01-08", "ns").astype(int)))
        assert cut - history.played[1] == (warmup or 90) + 7


@pytest.mark.long
def test_bars_are_adjusted_and_resampled_before_windows_are_cut(folder: Path) -> None:
    config = replace(prices(folder), recorded=recorded(folder, resample=ResampleConfig("1h"), adjust=AdjustConfig()), warmup_bars=5)
    (each,) = source_of(pipeline(config, RulesConfig(observers=("position",)))).episodes([0])
    assert set(np.diff(each.bars.time_ns)) == {3600 * 10**9}


# Portfolios ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_portfolio_trades_symbols_whose_bars_come_at_times_of_their_own(tmp_path: Path) -> None:
    for place, step in enumerate((10, 10, 30)):
        write_symbol(tmp_path / f"S{place}.csv", minutes(3, step), place)
    rules = RulesConfig(actions="simplex_weights", observers=("returns", "staleness"))
    settings = {"symbols_per_episode": 3, "decide": "all_symbols"}
    of = source(tmp_path, rules, **settings)
    (each,) = of.episodes([0])
    assert each.symbols == ("S0", "S1", "S2")
    assert each.bars.present is not None
    assert each.bars.asks is not None
    assert each.bars.present[30:][each.bars.asks[30:], 2].all(), "the slow symbol is waited for"
    env = TradingVectorEnv(of, Rules.of(rules), 4)
    observations, _ = env.reset(seed=0)
    assert isinstance(env.single_action_space, Box)
    stale = []
    for _ in range(6):
        observations, rewards, _, _, _ = env.step(env.action_space.sample())
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        stale.append(observations[:, -3:])
    assert not np.any(stale), "where all are waited for, none is stale"
    each_bar = TradingVectorEnv(source(tmp_path, rules, symbols_per_episode=3), Rules.of(rules), 1)
    each_bar.reset(seed=0)
    ages = [each_bar.step(each_bar.action_space.sample())[0][0, -3:].tolist() for _ in range(12)]
    assert {age[2] for age in ages} == {0.0, 1.0, 2.0}
    assert {age[0] for age in ages} == {0.0}


def test_rounds_of_portfolios_go_through_the_universe(tmp_path: Path) -> None:
    for place in range(5):
        write_symbol(tmp_path / f"S{place}.csv", minutes(1), place)
    of = source(tmp_path, RulesConfig(actions="simplex_weights"), symbols_per_episode=2, bars_per_episode=20, warmup_bars=33)
    assert [each.symbols for each in of.episodes(range(6))] == [
        ("S0", "S1"),
        ("S2", "S3"),
        ("S4", "S0"),
        ("S1", "S2"),
        ("S3", "S4"),
        ("S0", "S1"),
    ]


@pytest.mark.long
@pytest.mark.parametrize(("together", "slots"), [(1, ("price",)), (3, ("price_1", "price_2", "price_3")), (4, ("S0", "S1", "S2", "S3"))])
def test_what_is_observed_is_called_after_the_files_symbols_where_every_episode_has_the_same(
    together: int, slots: tuple[str, ...], tmp_path: Path
) -> None:
    for place in range(4):
        write_symbol(tmp_path / f"S{place}.csv", minutes(1), place)
    group = {"name": "group_exposure", "group": "sector", "symbols": list(slots[:1])}
    rules = RulesConfig(actions="target_weight", risk=(group,))
    of = source(tmp_path, rules, symbols_per_episode=together, bars_per_episode=20, warmup_bars=40)
    assert of.slots == slots
    assert TradingVectorEnv(of, Rules.of(rules), 2).reset()[0].shape[0] == 2

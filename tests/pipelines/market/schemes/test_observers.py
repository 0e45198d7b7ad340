"""What is observed: bounded numbers, independent of the currency, of bars that have closed alone, with the values that are documented."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.monitoring.action import Action
from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.registry import Choice
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.running_statistics import Volatility
from policyserver.pipelines.market.schemes.observers import OBSERVERS
from policyserver.pipelines.market.schemes.observers.indicator import INDICATORS, Indicator
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.price_paths import SLOTS, SYMBOLS, begun, episode_of
from tests.pipelines.recorded_prices import catalog_of, index_series

INDICATOR_CHOICES: tuple[Choice, ...] = tuple({"name": "indicator", "kind": kind} for kind in INDICATORS)
DEFAULT = Rules.of(RulesConfig())
EVERYTHING = Rules.of(RulesConfig(observers=(*(name for name in OBSERVERS.shipped if name != "indicator"), *INDICATOR_CHOICES)))
NAMES = DEFAULT.names(SLOTS)
FEWEST = {DEFAULT: DEFAULT.warmup_bars(), EVERYTHING: EVERYTHING.warmup_bars()}

both = pytest.mark.parametrize("rules", [DEFAULT, EVERYTHING], ids=["default", "everything"])


def block_after(closes: list[float], rules: Rules = DEFAULT, warmup_bars: int | None = None) -> EpisodeBlock:
    """A block of one row that has seen these closes, the first of them as its warm-up; one more bar is left."""
    block, feed = begun([episode_of([*closes, closes[-1]], warmup_bars or len(closes))], rules)
    for _ in range(len(closes) - (warmup_bars or len(closes))):
        block.fill(np.arange(1), feed.next(np.arange(1)))
        block.mark(np.arange(1))
    return block


def named(block: EpisodeBlock) -> dict[str, float]:
    return dict(zip(block.rules.names(SLOTS), block.observe()[0].tolist(), strict=True))


def test_the_default_observation_has_ten_named_numbers() -> None:
    assert (
        *("return_1", "return_5", "distance_fast", "distance_slow", "volatility"),
        *("prediction", "uncertainty", "position", "unrealised_profit", "time_left"),
    ) == NAMES


@pytest.mark.parametrize("kind", OBSERVERS.shipped)
def test_an_observer_has_a_name_and_a_place_in_its_space_for_each_number_that_it_gives(kind: str) -> None:
    rules = Rules.of(RulesConfig(observers=(kind,)))
    paths = np.exp(0.01 * np.random.default_rng(1).standard_normal((60, 3)).cumsum(axis=0))
    for closes, symbols in ((paths[:, 0], SLOTS), (paths, SYMBOLS)):
        block, _ = begun([episode_of(closes, warmup_bars=50)] * 2, rules)
        names = rules.names(symbols)
        assert block.observe().shape == (2, len(names))
        assert rules.observation_space(symbols).shape == (len(names),)
        assert len(set(names)) == len(names)


def test_each_indicator_can_be_chosen_by_its_name() -> None:
    assert get_args(get_type_hints(Indicator)["kind"]) == tuple(INDICATORS)


@pytest.mark.long
@both
@settings(deadline=None)
@given(
    closes=st.lists(st.floats(1e-6, 1e9), min_size=40, max_size=60),
    mean=st.floats(-1e3, 1e3),
    std=st.just(0.0) | st.floats(1e-100, 1e3),
    equity=st.floats(-1e6, 1e12),
    volume=st.sampled_from([0.0, 1.0, 1e18]),
)
def test_observations_are_finite_float32_within_the_space_whatever_the_prices(
    rules: Rules, closes: list[float], mean: float, std: float, equity: float, volume: float
) -> None:
    episode = episode_of(closes, FEWEST[rules])
    episode.bars.bars[..., 4] = volume
    block, feed = begun([episode], rules)
    for _ in range(len(closes) - FEWEST[rules]):
        block.fill(np.arange(1), feed.next(np.arange(1)))
    accounts = block.view.accounts
    accounts.cash[0] = accounts.equity[0] = equity
    accounts.position[0] = 3.0
    block.view.forecast[0, 0] = mean, std, mean
    observation = block.observe()
    assert observation.dtype == np.float32
    assert np.all(np.isfinite(observation))
    assert rules.observation_space(SLOTS).contains(observation[0])


@both
def test_observations_do_not_depend_on_the_currency(rules: Rules) -> None:
    closes = [100.0 * math.exp(0.01 * math.sin(index)) for index in range(50)]
    seen, elsewhere = block_after(closes, rules).observe(), block_after([close * 7000 for close in closes], rules).observe()
    np.testing.assert_allclose(seen, elsewhere, rtol=1e-4, atol=1e-5)


def test_a_constant_price_shows_nothing() -> None:
    observation = named(block_after([5.0] * 30))
    assert {name for name, value in observation.items() if value != 0} == {"volatility", "time_left"}


def test_observers_give_the_values_that_their_descriptions_say() -> None:
    returns = [0.01, -0.02, 0.005, 0.01, 0.02, -0.01, 0.03]
    logs = np.cumsum([math.log(50.0), *returns])
    block = block_after(np.exp(logs).tolist())
    block.view.forecast[0, 0] = 0.002, 0.01, 0.0
    observation = named(block)
    volatility = math.sqrt(np.mean(np.square(returns)))  # fewer bars than the memory: the plain mean
    fast = math.sqrt(8) * volatility
    assert observation["return_1"] == pytest.approx(0.03 / volatility, rel=1e-5)
    assert observation["return_5"] == pytest.approx(sum(returns[-5:]) / (volatility * math.sqrt(5)), rel=1e-5)
    assert observation["distance_fast"] == pytest.approx((logs[-1] - logs.mean()) / fast, rel=1e-5)
    assert observation["distance_slow"] == pytest.approx((logs[-1] - logs.mean()) / (volatility * math.sqrt(32)), rel=1e-5)
    assert observation["volatility"] == pytest.approx(math.log(volatility / 0.01), rel=1e-5)
    assert observation["prediction"] == pytest.approx(2.0)
    assert observation["uncertainty"] == pytest.approx(0.01 / volatility, rel=1e-5)
    assert observation["time_left"] == 1.0


def test_the_time_that_is_left_is_the_share_of_the_actions_that_are() -> None:
    block, feed = begun([episode_of([100.0] * 14, warmup_bars=10)])
    left = []
    for _ in range(4):
        left.append(named(block)["time_left"])
        block.fill(np.arange(1), feed.next(np.arange(1)))
    assert [*left, named(block)["time_left"]] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_the_portfolio_is_seen() -> None:
    free = Rules.of(RulesConfig(instrument=InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0)))
    closes = [100.0 + (index % 2) for index in range(20)]
    block, feed = begun([episode_of([*closes, closes[-1] * 1.02], warmup_bars=20)], free)
    block.act(np.arange(1), np.array([Action.BUY]))
    block.fill(np.arange(1), feed.next(np.arange(1)))
    block.mark(np.arange(1))
    observation = named(block)
    volatility = block.view.statistics[Volatility()][0, 0]
    assert observation["position"] == pytest.approx(1.0)
    assert observation["unrealised_profit"] == pytest.approx(math.log(1.02) / (volatility * math.sqrt(8)), rel=1e-5)


@pytest.mark.long
@both
def test_warm_up_bars_that_come_at_once_show_what_they_show_one_by_one(rules: Rules) -> None:
    closes = make_source(PricesConfig(), seed=1).episodes([0])[0].bars.bars[:150, 0, 3].tolist()
    at_once, one_by_one = block_after(closes, rules), block_after(closes, rules, warmup_bars=FEWEST[rules])
    one_by_one.view.clock[:] = 0
    np.testing.assert_allclose(at_once.observe(), one_by_one.observe(), rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_the_default_observers_see_nothing_of_a_bar_but_its_close() -> None:
    (episode,) = make_source(PricesConfig(), seed=1).episodes([0])
    honest, garbled = (begun([episode]) for _ in range(2))
    rows = np.arange(1)
    for _ in range(50):
        honest[0].fill(rows, honest[1].next(rows))
        bar = garbled[1].next(rows)
        nan = np.full((1, 1), math.nan)
        garbled[0].fill(rows, BarRows.of(np.zeros(1, np.int64), nan, nan + math.inf, -nan, bar.close, nan))
        assert honest[0].observe().tobytes() == garbled[0].observe().tobytes()


@pytest.mark.long
@both
def test_nothing_of_a_later_bar_is_seen_and_seeing_changes_nothing(rules: Rules) -> None:
    """The same paths with other bars after the 50th action; the rows of the one block are observed twice."""
    episodes = make_source(PricesConfig(), seed=1).episodes(range(4))
    changed = [
        Episode(episode.symbols, episode.number, type(episode.bars)(episode.bars.time_ns, _garbled(episode, 50), episode.bars.warmup_bars))
        for episode in episodes
    ]
    honest, garbled = begun(episodes, rules), begun(changed, rules)
    rows = np.arange(4)
    for step in range(60):
        assert honest[0].observe().tobytes() == honest[0].observe().tobytes()
        assert (honest[0].observe().tobytes() == garbled[0].observe().tobytes()) == (step <= 50), step
        for block, feed in (honest, garbled):
            block.act(rows, (rows + step) % 3)
            block.fill(rows, feed.next(rows))
            block.mark(rows)


def _garbled(episode: Episode, last_good: int) -> npt.NDArray[np.float64]:
    bars = episode.bars.bars.copy()
    first_bad = episode.bars.warmup_bars + last_good
    bars[first_bad:, :, :4] *= 3.0
    bars[first_bad:, :, 4] += 5.0
    return bars


@pytest.mark.long
@pytest.mark.parametrize(
    "prices",
    [PricesConfig(process="ou"), PricesConfig(process="gbm"), PricesConfig(recorded=catalog_of(index_series("sp500")))],
    ids=["ou", "gbm", "recorded"],
)
def test_observations_have_about_unit_scale_on_simulated_and_on_real_prices(prices: PricesConfig) -> None:
    source = make_source(prices, seed=2)
    block, feed = begun(source.episodes(range(30)))
    seen = [block.observe()]
    for _ in range(200):
        block.fill(slice(None), feed.next(np.arange(30)))
        seen.append(block.observe())
    scale = dict(zip(NAMES, np.sqrt(np.mean(np.square(seen), axis=(0, 1))), strict=True))
    for name in ("return_1", "return_5", "distance_fast", "distance_slow", "volatility"):
        assert 0.1 < scale[name] < 3, f"{name}: {scale[name]}"


def test_fewer_warm_up_bars_than_the_rules_look_back_at_are_refused() -> None:
    assert (FEWEST[DEFAULT], FEWEST[EVERYTHING]) == (6, 32)
    for count in (1, 5):
        with pytest.raises(ValueError, match=f"warm-up: expected at least the 6 bars that the rules look back at, received {count}"):
            begun([episode_of([100.0] * 10, warmup_bars=count)])


@pytest.mark.long
def test_rows_see_their_own_bars_alone() -> None:
    episodes = make_source(PricesConfig(), seed=1).episodes(range(6))
    together, feed = begun(episodes, EVERYTHING)
    for rows in (np.arange(6), np.array([1, 3]), np.array([3, 5, 0])):
        together.fill(rows, feed.next(rows))
    for row, bars in enumerate([2, 2, 1, 3, 1, 2]):
        alone, own_feed = begun(episodes[row : row + 1], EVERYTHING)
        for _ in range(bars):
            alone.fill(np.arange(1), own_feed.next(np.arange(1)))
        np.testing.assert_array_equal(together.observe(np.array([row])), alone.observe())


def test_an_unknown_observer_or_field_is_refused_by_its_key() -> None:
    for choice, message in (
        ("prices", r"rules\.observers\[0\]\.name: expected returns, .*received 'prices'"),
        ({"name": "returns", "bar": 3}, r"rules\.observers\[0\]\.bar"),
        ({"name": "window", "bars": 0}, r"rules\.observers\[0\]\.bars"),
    ):
        with pytest.raises(ValueError, match=message):
            Rules.of(RulesConfig(observers=(choice,)))

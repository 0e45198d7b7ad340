from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.market.reference_policies import mean_reversion_rule, optimum, plan_of
from policyserver.monitoring.action import Action
from policyserver.pipelines.account import AccountConfig
from policyserver.pipelines.baselines import no_trade, replay_episodes
from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.price_processes import GbmConfig
from policyserver.pipelines.prices import EpisodePrices, PricesConfig, make_source

PARAMETERS = {"mean_price": 100.0, "reversion": 0.05, "volatility": 0.01}
FREE = AccountConfig(fee_fraction=0.0, slippage_fraction=0.0)


def episodes_of(process: str, count: int, seed: int = 0) -> list[EpisodePrices]:
    source = make_source(PricesConfig(process=process), seed)  # type: ignore[arg-type]
    return [source.episode(source.symbols[number % 4], number) for number in range(count)]


def prices_of(closes: list[float], warmup_bars: int) -> EpisodePrices:
    """Make an episode of given closes, each bar opening at the close before it."""
    close = np.array(closes)
    opens = np.concatenate((close[:1], close[:-1]))
    times = np.arange(len(close), dtype=np.int64)
    bars = Bars(times, opens, np.maximum(opens, close), np.minimum(opens, close), close, np.ones(len(close)))
    return EpisodePrices("AAA", 0, "ou", PARAMETERS, bars, warmup_bars)


def test_the_rule_is_short_above_the_running_mean_by_a_volatility_long_below_it_and_keeps_its_position_between() -> None:
    around = [100.0, 101.0] * 10
    prices = prices_of([*around, 104.0, 100.6, 97.0, 100.4, 100.0], warmup_bars=21)
    result = mean_reversion_rule(AccountConfig(), [prices])
    by_hand = replay_episodes(AccountConfig(), [prices], [np.array([Action.SELL, Action.HOLD, Action.BUY, Action.HOLD])])
    assert result.returns == by_hand.returns
    assert result.returns[0] > 5.0


def test_without_costs_the_plan_is_short_above_the_mean_and_long_below_it() -> None:
    levels, plan = plan_of(FREE, PARAMETERS, 10)
    beyond = np.abs(levels) > 0.001
    for position in range(3):
        assert np.array_equal(plan[:, beyond, position], np.broadcast_to(-np.sign(levels[beyond]), (10, beyond.sum())))


def test_with_costs_it_waits_for_a_larger_deviation_where_less_time_is_left() -> None:
    levels, plan = plan_of(AccountConfig(), PARAMETERS, 100)
    flat = plan[:, :, 1]
    starts = [levels[(row == -1) & (levels > 0)].min(initial=math.inf) for row in flat]
    assert starts == sorted(starts)
    assert starts[0] < starts[98] < starts[99] < math.inf
    assert starts[99] > 0.0011 / -math.expm1(-0.05), "one bar's reversion pays fee and slippage"


def test_the_optimum_earns_more_than_decisions_that_are_fixed_beforehand() -> None:
    source = make_source(PricesConfig(bars_per_episode=3, warmup_bars=1), seed=2)
    episodes = [source.episode("AAA", number) for number in range(4_000)]
    config = dataclasses.replace(AccountConfig(), fee_fraction=0.0005)
    best = optimum(config, episodes).returns
    for rule in (
        (Action.SELL, Action.HOLD, Action.HOLD),
        (Action.BUY, Action.HOLD, Action.HOLD),
        (Action.HOLD, Action.HOLD, Action.HOLD),
        (Action.SELL, Action.BUY, Action.SELL),
    ):
        fixed = replay_episodes(config, episodes, [np.array(rule)] * len(episodes)).returns
        difference = best - fixed
        assert difference.mean() > 3.0 * difference.std() / math.sqrt(len(difference))


def test_the_scale_of_the_demos_prices() -> None:
    episodes = episodes_of("ou", 200)
    rule, best = mean_reversion_rule(AccountConfig(), episodes), optimum(AccountConfig(), episodes)
    gain = best.returns - rule.returns
    assert gain.mean() > 2.0 * gain.std() / math.sqrt(len(gain))
    assert 18.0 < rule.returns.mean() < best.returns.mean() < 24.0


def test_in_a_fair_game_the_optimum_holds_cash_and_the_rule_pays() -> None:
    episodes = episodes_of("gbm", 50)
    assert np.array_equal(optimum(AccountConfig(), episodes).returns, no_trade(AccountConfig(), episodes).returns)
    assert mean_reversion_rule(AccountConfig(), episodes).costs.mean() > 0.005


def test_prices_whose_law_it_does_not_know_are_refused() -> None:
    drifting = PricesConfig(process="gbm", gbm=GbmConfig(price_drift=Prior.fixed(0.001)))
    with pytest.raises(ValueError, match="expected ou, or gbm without drift"):
        optimum(AccountConfig(), [make_source(drifting, 0).episode("AAA", 0)])

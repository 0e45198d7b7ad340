"""The rule and the optimum that a market policy is measured by: what they decide, what they earn, and which prices they refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.market.reference_policies import Terms, mean_reversion_rule, optimum, plan_of
from policyserver.monitoring.action import Action
from policyserver.pipelines.baselines import Results, play
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.price_paths import SLOTS, episode_of

PARAMETERS = {"mean_price": 100.0, "reversion": 0.05, "volatility": 0.01}
DEMO = Rules.of(RulesConfig())


def rules_with(fee_fraction: float, slippage_fraction: float = 0.0) -> Rules:
    return Rules.of(RulesConfig(instrument=InstrumentConfig(fee_fraction=fee_fraction, slippage_fraction=slippage_fraction)))


def episodes_of(process: str, count: int, seed: int = 0) -> list[Episode]:
    return make_source(PricesConfig(process=process), seed).episodes(range(count))


def of_actions(rules: Rules, episodes: Sequence[Episode], actions: Sequence[Action]) -> Results:
    """What the same actions earn in every episode."""
    return play(rules, SLOTS, episodes, lambda block, rows, step: np.full(len(rows), actions[step]))


def test_the_rule_is_short_above_the_running_mean_by_a_volatility_long_below_it_and_keeps_its_position_between() -> None:
    around = [100.0, 101.0] * 10
    episode = episode_of([*around, 104.0, 100.6, 97.0, 100.4, 100.0], warmup_bars=21)
    result = mean_reversion_rule(DEMO, [episode])
    by_hand = of_actions(DEMO, [episode], [Action.SELL, Action.HOLD, Action.BUY, Action.HOLD])
    assert result.returns == by_hand.returns
    assert result.returns[0] > 5.0


def test_without_costs_the_plan_is_short_above_the_mean_and_long_below_it() -> None:
    levels, plan = plan_of(Terms.of(rules_with(0.0)), PARAMETERS, 10)
    beyond = np.abs(levels) > 0.001
    for position in range(3):
        assert np.array_equal(plan[:, beyond, position], np.broadcast_to(-np.sign(levels[beyond]), (10, beyond.sum())))


def test_with_costs_it_waits_for_a_larger_deviation_where_less_time_is_left() -> None:
    levels, plan = plan_of(Terms.of(DEMO), PARAMETERS, 100)
    flat = plan[:, :, 1]
    starts = [levels[(row == -1) & (levels > 0)].min(initial=math.inf) for row in flat]
    assert starts == sorted(starts)
    assert starts[0] < starts[98] < starts[99] < math.inf
    assert starts[99] > 0.0011 / -math.expm1(-0.05), "one bar's reversion pays fee and slippage"


@pytest.mark.slow
def test_the_optimum_earns_more_than_decisions_that_are_fixed_beforehand() -> None:
    source = make_source(PricesConfig(bars_per_episode=3, warmup_bars=6), seed=2)
    episodes = source.episodes(range(4_000))
    rules = rules_with(0.0005, 0.0001)
    best = optimum(rules, episodes).returns
    for rule in (
        (Action.SELL, Action.HOLD, Action.HOLD),
        (Action.BUY, Action.HOLD, Action.HOLD),
        (Action.HOLD, Action.HOLD, Action.HOLD),
        (Action.SELL, Action.BUY, Action.SELL),
    ):
        fixed = of_actions(rules, episodes, rule).returns
        difference = best - fixed
        assert difference.mean() > 3.0 * difference.std() / math.sqrt(len(difference))


@pytest.mark.slow
def test_the_scale_of_the_demos_prices() -> None:
    episodes = episodes_of("ou", 200)
    rule, best = mean_reversion_rule(DEMO, episodes), optimum(DEMO, episodes)
    gain = best.returns - rule.returns
    assert gain.mean() > 2.0 * gain.std() / math.sqrt(len(gain))
    assert 18.0 < rule.returns.mean() < best.returns.mean() < 24.0


def test_in_a_fair_game_the_optimum_holds_cash_and_the_rule_pays() -> None:
    episodes = episodes_of("gbm", 50)
    assert np.array_equal(optimum(DEMO, episodes).returns, of_actions(DEMO, episodes, [Action.HOLD] * 200).returns)
    assert mean_reversion_rule(DEMO, episodes).costs.mean() > 0.005


def test_prices_whose_law_it_does_not_know_are_refused() -> None:
    drifting = PricesConfig(process={"name": "gbm", "price_drift": {"low": 0.001, "high": 0.001}})
    with pytest.raises(ValueError, match="expected ou, or gbm without drift"):
        optimum(DEMO, make_source(drifting, 0).episodes([0]))


def test_rules_that_it_cannot_plan_by_are_refused() -> None:
    flat = Rules.of(RulesConfig(actions="hold_buy_sell_close"))
    with pytest.raises(ValueError, match="rules: expected SellHoldBuy, LogEquity, Ruin, received HoldBuySellClose, LogEquity, Ruin"):
        optimum(flat, episodes_of("ou", 1))

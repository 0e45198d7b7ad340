"""Equity is cash plus position, costs only take from it, rewards add up to its log growth, and no policy profits on a fair game."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.monitoring.action import Action
from policyserver.pipelines.account import Account, AccountConfig
from policyserver.pipelines.baselines import replay
from policyserver.pipelines.prices import PricesConfig, make_source

FREE = AccountConfig(fee_fraction=0.0, slippage_fraction=0.0)

bars = st.lists(
    st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.sampled_from([Action.SELL, Action.HOLD, Action.BUY])), min_size=1, max_size=60
)
"""Log gap to the open, log-return from open to close, and the action taken before: gaps too, as real bars have them."""


def play(config: AccountConfig, steps: list[tuple[float, float, int]]) -> tuple[Account, float]:
    account, price, rewards = Account(config, 100.0), 100.0, 0.0
    for gap, change, action in steps:
        order = account.order(action)
        open_ = price * math.exp(gap)
        if order is not None:
            before = account.cash + account.position * open_
            fill = account.fill(order, open_)
            assert account.equity == pytest.approx(before - fill.fee - fill.slippage)
            assert account.equity <= before + 1e-9
        price = open_ * math.exp(change)
        rewards += account.mark(price)
        assert account.equity == account.cash + account.position * price
        if account.ruined:
            break
    return account, rewards


@given(bars)
def test_equity_is_cash_plus_position_and_costs_only_take_from_it(steps: list[tuple[float, float, int]]) -> None:
    account, _ = play(AccountConfig(), steps)
    assert account.fees >= 0
    assert account.slippage >= 0
    assert account.costs == pytest.approx(account.turnover * (0.001 + 0.0001), rel=2e-4)


@given(bars)
def test_the_rewards_add_up_to_the_log_of_the_equity_gained(steps: list[tuple[float, float, int]]) -> None:
    account, rewards = play(AccountConfig(reward_scale=7.0), steps)
    assert rewards == pytest.approx(7.0 * math.log(max(account.equity, 10.0) / 10_000.0), abs=1e-9)


@given(bars)
def test_profit_is_the_price_moves_of_the_position_less_the_costs(steps: list[tuple[float, float, int]]) -> None:
    account, price, gains = Account(AccountConfig(), 100.0), 100.0, 0.0
    for gap, change, action in steps:
        order = account.order(action)
        open_ = price * math.exp(gap)
        gains += account.position * (open_ - price)
        if order is not None:
            account.fill(order, open_)
        price = open_ * math.exp(change)
        gains += account.position * (price - open_)
        account.mark(price)
    assert account.profit * 10_000 == pytest.approx(gains - account.costs, abs=1e-6)


def test_an_account_that_holds_never_trades() -> None:
    account, rewards = play(AccountConfig(), [(0.01, 0.02, Action.HOLD)] * 20)
    assert (rewards, account.equity, account.fills, account.exposure) == (0.0, 10_000.0, 0, 0.0)


def test_a_long_unit_without_costs_earns_the_return_of_the_price() -> None:
    account, rewards = play(FREE, [(0.0, 0.01, Action.BUY), (0.0, 0.02, Action.HOLD), (0.0, -0.005, Action.BUY)])
    assert account.fills == 1
    assert rewards == pytest.approx(100 * 0.025)
    assert account.exposure == pytest.approx(1.0)


def test_a_short_unit_gains_when_the_price_falls() -> None:
    account, _ = play(FREE, [(0.0, math.log(0.9), Action.SELL)])
    assert account.profit == pytest.approx(0.1)
    assert account.position == pytest.approx(-100.0)


def test_turning_from_short_to_long_trades_two_units() -> None:
    account = Account(FREE, 100.0)
    for action, quantity in ((Action.SELL, -100.0), (Action.BUY, 200.0)):
        order = account.order(action)
        assert order is not None
        assert order.quantity == pytest.approx(quantity)
        account.fill(order, 100.0)
        account.mark(100.0)
    assert account.position == pytest.approx(100.0)


def test_the_same_target_again_asks_for_no_order() -> None:
    account = Account(FREE, 100.0)
    order = account.order(Action.BUY)
    assert order is not None
    account.fill(order, 100.0)
    account.mark(120.0)
    assert account.order(Action.BUY) is None


def test_a_flattened_account_is_all_cash() -> None:
    account = Account(AccountConfig(), 100.0)
    for target in (1, 0):
        order = account.order_to(target)
        assert order is not None
        account.fill(order, 101.0)
        account.mark(101.0)
    assert account.position == 0.0
    assert account.equity == account.cash
    account.mark(500.0)
    assert account.equity == account.cash


def test_an_order_is_filled_at_the_next_open_with_fee_and_slippage() -> None:
    account = Account(AccountConfig(fee_fraction=0.001, slippage_fraction=0.01), 100.0)
    order = account.order(Action.BUY)
    assert order is not None
    fill = account.fill(order, 110.0)
    assert fill.quantity == pytest.approx(100.0)
    assert fill.price == pytest.approx(111.1)
    assert fill.fee == pytest.approx(11.11)
    assert fill.slippage == pytest.approx(110.0)
    assert account.equity == pytest.approx(10_000 - 100 * (111.1 - 110.0) - 11.11)


def test_a_lost_account_is_ruined_and_its_reward_stays_finite() -> None:
    account = Account(AccountConfig(), 100.0)
    order = account.order(Action.SELL)
    assert order is not None
    account.fill(order, 100.0)
    reward = account.mark(250.0)
    assert account.equity < 0
    assert account.ruined
    assert reward == pytest.approx(100 * math.log(1e-3), rel=1e-3)
    assert account.exposure == 0.0


@pytest.mark.parametrize("action", [-1, 3])
def test_an_action_that_is_none_is_refused(action: int) -> None:
    with pytest.raises(ValueError, match=f"action: expected one of 0 sell, 1 hold, 2 buy, received {action}"):
        Account(FREE, 100.0).order(action)


@pytest.mark.parametrize("field", ["initial_equity", "unit_fraction", "fee_fraction", "slippage_fraction", "ruin_fraction", "reward_scale"])
def test_a_configuration_that_makes_no_sense_is_refused_by_field(field: str) -> None:
    with pytest.raises(ValueError, match=rf"^argument of AccountConfig: {field}: expected .*, received -0\.5"):
        AccountConfig(**{field: -0.5})


@pytest.mark.long
@pytest.mark.parametrize("trend", ["random", "follow", "fade"])
def test_nobody_profits_on_gbm_but_for_what_the_costs_take(trend: str) -> None:
    """Mean simple profit plus mean costs is 0 on a fair game, whatever the policy does with the past."""
    n = 4000
    source = make_source(PricesConfig(process="gbm", warmup_bars=10, bars_per_episode=100, steps_per_bar=1), seed=11)
    episodes = [source.episode("AAA", index).bars for index in range(n)]
    opens = np.array([bars.open[10:] for bars in episodes])
    closes = np.array([bars.close[9:] for bars in episodes])
    if trend == "random":
        actions = np.random.default_rng(1).integers(3, size=opens.shape)
    else:
        past = np.array([bars.close[9:109] - bars.close[4:104] for bars in episodes])
        actions = np.where((past > 0) == (trend == "follow"), Action.BUY, Action.SELL)
    result = replay(AccountConfig(), opens, closes, actions)
    total = result.profits + result.costs
    assert abs(total.mean()) < 3 * total.std() / math.sqrt(n)
    assert result.costs.mean() > 0.01
    assert result.profits.mean() < -10 * result.profits.std() / math.sqrt(n)


@pytest.mark.parametrize(
    "setting", [{"initial_equity": 1e300}, {"unit_fraction": 1e9}, {"reward_scale": 1e308}, {"reward_scale": math.inf}]
)
def test_a_setting_that_leads_out_of_what_a_float_can_hold_is_refused_by_field(setting: dict[str, float]) -> None:
    (field,) = setting
    with pytest.raises(ValueError, match=rf"^argument of AccountConfig: {field}: expected (more than 0 and at most|a finite number)"):
        AccountConfig(**setting)

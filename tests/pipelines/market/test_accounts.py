"""What always holds of a block's accounts, by plain sums; that they keep the oracle's books is said in `test_against_the_oracle`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.common.settings import Config
from policyserver.monitoring.action import Action
from policyserver.pipelines.baselines import Choose, play
from policyserver.pipelines.market.block import DATA_END, GOES_ON, EpisodeBlock
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.actions.sell_hold_buy import SellHoldBuy
from policyserver.pipelines.market.schemes.ends.equity_ends import Ruin
from policyserver.pipelines.market.schemes.rewards.log_equity import LogEquity
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.price_paths import bar_of, begun, episode_of

FREE = InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0)

steps_of = st.lists(
    st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.sampled_from([Action.SELL, Action.HOLD, Action.BUY])), min_size=1, max_size=40
)
"""Log gap to the open, log-return from open to close, and the action taken before: gaps too, as real bars have them."""

ROW = np.zeros(1, dtype=np.int64)


@dataclass
class Played:
    """One account that is played bar by bar, from a price of 100."""

    block: EpisodeBlock
    price: float = 100.0
    reward: float = 0.0
    gains: float = 0.0
    end: int = GOES_ON

    @classmethod
    def begin(cls, instrument: InstrumentConfig | None = None, reward_scale: float = 100.0) -> Played:
        choice = {"name": "log_equity", "scale": reward_scale}
        account = AccountConfig(max_leverage=None)
        rules = Rules.of(RulesConfig(rewards=(choice,), instrument=instrument or InstrumentConfig(), account=account))
        return cls(begun([episode_of([100.0] * 100, warmup_bars=8)], rules)[0])

    def step(self, gap: float, change: float, action: Action) -> None:
        self.block.act(ROW, np.array([action]))
        self.play(gap, change)

    def play(self, gap: float, change: float) -> None:
        accounts = self.block.view.accounts
        open_ = self.price * math.exp(gap)
        close = open_ * math.exp(change)
        position = self.position
        before, costs = accounts.cash[0] + position * open_, accounts.costs[0]
        fills = self.block.fill(ROW, bar_of(open_, close))
        assert accounts.cash[0] + self.position * open_ == pytest.approx(before - (accounts.costs[0] - costs))
        assert accounts.costs[0] >= costs, "costs only take from the equity"
        if len(fills.rows):
            assert fills.reference_price[0] == open_
        marked = self.block.mark(ROW)
        assert accounts.equity[0] == accounts.cash[0] + self.position * close
        self.gains += position * (open_ - self.price) + self.position * (close - open_)
        self.price, self.reward, self.end = close, self.reward + marked.rewards[0], int(marked.ends[0])

    @property
    def position(self) -> float:
        return float(self.block.view.accounts.position[0, 0])


def played(steps: list[tuple[float, float, Action]], instrument: InstrumentConfig | None = None, reward_scale: float = 100.0) -> Played:
    account = Played.begin(instrument, reward_scale)
    for step in steps:
        account.step(*step)
        if account.end != GOES_ON:
            break
    return account


@pytest.mark.long
@settings(deadline=None)
@given(steps_of)
def test_equity_is_cash_and_position_and_costs_are_those_of_what_was_traded(steps: list[tuple[float, float, Action]]) -> None:
    accounts = played(steps).block.view.accounts
    assert accounts.fees[0] == pytest.approx(0.001 * accounts.turnover[0])
    assert accounts.costs[0] == pytest.approx(accounts.turnover[0] * (0.001 + 0.0001), rel=2e-4)


@pytest.mark.long
@settings(deadline=None)
@given(steps_of)
def test_the_rewards_add_up_to_the_log_of_the_equity_gained(steps: list[tuple[float, float, Action]]) -> None:
    account = played(steps, reward_scale=7.0)
    equity = account.block.view.accounts.equity[0]
    assert account.reward == pytest.approx(7.0 * math.log(max(equity, 10.0) / 10_000.0), abs=1e-9)


@pytest.mark.long
@settings(deadline=None)
@given(steps_of)
def test_profit_is_the_price_moves_of_the_position_less_the_costs(steps: list[tuple[float, float, Action]]) -> None:
    account = played(steps)
    accounts = account.block.view.accounts
    assert accounts.profit[0] * 10_000 == pytest.approx(account.gains - accounts.costs[0], abs=1e-6)


def test_an_account_that_holds_never_trades() -> None:
    account = played([(0.01, 0.02, Action.HOLD)] * 20)
    accounts = account.block.view.accounts
    assert (account.reward, accounts.equity[0], accounts.fills[0], accounts.exposure(ROW)[0, 0]) == (0.0, 10_000.0, 0, 0.0)


def test_a_long_unit_without_costs_earns_the_return_of_the_price() -> None:
    account = played([(0.0, 0.01, Action.BUY), (0.0, 0.02, Action.HOLD), (0.0, -0.005, Action.BUY)], FREE)
    accounts = account.block.view.accounts
    assert accounts.fills[0] == 1, "the same target again asks for no order"
    assert account.reward == pytest.approx(100 * 0.025)
    assert accounts.exposure(ROW)[0, 0] == pytest.approx(1.0)


def test_a_short_unit_gains_when_the_price_falls() -> None:
    account = played([(0.0, math.log(0.9), Action.SELL)], FREE)
    assert account.block.view.accounts.profit[0] == pytest.approx(0.1)
    assert account.position == pytest.approx(-100.0)


def test_turning_from_short_to_long_trades_two_units() -> None:
    account = played([(0.0, 0.0, Action.SELL), (0.0, 0.0, Action.BUY)], FREE)
    assert account.position == pytest.approx(100.0)
    assert account.block.view.accounts.turnover[0] == pytest.approx(30_000.0)


def test_a_closed_account_is_all_cash_whatever_its_actions_said() -> None:
    account = played([(0.0, 0.0, Action.BUY)])
    account.block.close_positions(ROW)
    account.play(0.01, 0.02)
    accounts = account.block.view.accounts
    assert account.position == 0.0
    assert accounts.equity[0] == accounts.cash[0]
    cash = accounts.cash[0]
    account.play(1.0, 1.0)
    assert accounts.equity[0] == cash
    account.step(0.0, 0.0, Action.BUY)
    assert account.position > 0, "the direction that was held before is no longer held"


def test_an_order_is_filled_at_the_next_open_with_fee_and_slippage() -> None:
    account = Played.begin(InstrumentConfig(fee_fraction=0.001, slippage_fraction=0.01))
    account.block.act(ROW, np.array([Action.BUY]))
    fills = account.block.fill(ROW, bar_of(110.0, 110.0))
    assert fills.quantity[0] == pytest.approx(100.0)
    assert fills.price[0] == pytest.approx(111.1)
    assert fills.fee[0] == pytest.approx(11.11)
    accounts = account.block.view.accounts
    assert accounts.slippage[0] == pytest.approx(110.0)
    assert accounts.equity[0] == pytest.approx(10_000 - 100 * (111.1 - 110.0) - 11.11)


def test_a_lost_account_is_ruined_and_its_reward_stays_finite() -> None:
    account = played([(0.0, math.log(2.5), Action.SELL)])
    accounts = account.block.view.accounts
    assert accounts.equity[0] < 0
    assert account.end == 1, "the place of `ruin`"
    assert account.block.terminates(np.array([account.end, DATA_END, GOES_ON])).tolist() == [True, False, False]
    assert account.reward == pytest.approx(100 * math.log(1e-3), rel=1e-3)
    assert accounts.exposure(ROW)[0, 0] == 0.0


@pytest.mark.parametrize("scheme", ["sell_hold_buy", "target_position", "hold_buy_sell_close"])
@pytest.mark.parametrize("action", [-1, 5])
def test_an_action_that_is_none_is_refused(scheme: str, action: int) -> None:
    block, _ = begun([episode_of([100.0] * 20, warmup_bars=8)], Rules.of(RulesConfig(actions=scheme)))
    with pytest.raises(ValueError, match=rf"actions: expected numbers from 0 to \d, received {action}"):
        block.act(ROW, np.array([action]))


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (AccountConfig, "initial_equity"),
        (SellHoldBuy, "unit_fraction"),
        (InstrumentConfig, "fee_fraction"),
        (InstrumentConfig, "slippage_fraction"),
        (Ruin, "fraction"),
        (LogEquity, "scale"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_field(part: type[Config], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^argument of {part.__name__}: {field}: expected .*, received -0\.5"):
        part(**{field: -0.5})


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        (AccountConfig, "initial_equity", 1e300),
        (SellHoldBuy, "unit_fraction", 1e9),
        (LogEquity, "scale", 1e308),
        (LogEquity, "scale", math.inf),
    ],
)
def test_a_setting_that_leads_out_of_what_a_float_can_hold_is_refused_by_field(part: type[Config], field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^argument of {part.__name__}: {field}: expected (more than 0 and at most|a finite number)"):
        part(**{field: value})


def follow(block: EpisodeBlock, rows: np.ndarray, step: int) -> np.ndarray:
    window = block.view.history.window(rows, 6)[:, :, 0, 3]
    return np.where(window[:, -1] > window[:, 0], Action.BUY, Action.SELL)


def fade(block: EpisodeBlock, rows: np.ndarray, step: int) -> np.ndarray:
    return np.where(follow(block, rows, step) == Action.BUY, Action.SELL, Action.BUY)


def at_random(block: EpisodeBlock, rows: np.ndarray, step: int) -> np.ndarray:
    actions: np.ndarray = np.random.default_rng(step).integers(3, size=block.shape.n_rows)[rows]
    return actions


@pytest.mark.long
@pytest.mark.parametrize("choose", [at_random, follow, fade])
def test_nobody_profits_on_gbm_but_for_what_the_costs_take(choose: Choose) -> None:
    """Mean simple profit plus mean costs is 0 on a fair game, whatever the policy does with the past."""
    n = 4000
    source = make_source(PricesConfig(process="gbm", warmup_bars=10, bars_per_episode=100, steps_per_bar=1), seed=11)
    result = play(Rules.of(RulesConfig()), source.slots, source.episodes(range(n)), choose)
    total = result.profits + result.costs
    assert abs(total.mean()) < 3 * total.std() / math.sqrt(n)
    assert result.costs.mean() > 0.01
    assert result.profits.mean() < -10 * result.profits.std() / math.sqrt(n)

"""Without leverage and shorts cash is never negative; with leverage a margin call ends what a fall would make of it.

But for a sale that brings less than its fee; so this market has no fixed or minimum fee.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.instruments import InstrumentConfig, Instruments
from policyserver.pipelines.market.rows import ALL
from tests.pipelines.market.risk.traded import Traded
from tests.pipelines.market.test_against_the_oracle import ROWS, random_bar, random_requests


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.01]), st.sampled_from([0.0, 1.0]), st.sampled_from([None, 0.2]))
def test_without_leverage_and_shorts_cash_is_never_negative(seed: int, tick: float, lot: float, volume: float | None) -> None:
    rng = np.random.default_rng(seed)
    terms = InstrumentConfig(
        tick=tick, lot=lot, fee_fraction=0.002, fee_per_unit=0.01, slippage_fraction=0.001, volume_fraction=volume, short_allowed=False
    )
    accounts, config = Accounts(ROWS, 2), AccountConfig(max_leverage=1.0)
    accounts.begin(ALL, config.initial_equity, np.tile([100.0, 50.0], (ROWS, 1)))
    broker = SimulatedBroker(accounts, Instruments(ROWS, [terms, terms]), config)
    for _ in range(20):
        broker.submit(random_requests(rng, np.flatnonzero(rng.random(ROWS) < 0.7), accounts, 2))
        broker.fill(ALL, random_bar(rng, accounts.price, np.full(2, tick)))
        accounts.value(ALL)
        accounts.settle(ALL)
        assert accounts.cash.min() >= -1e-9 * config.initial_equity
        assert accounts.position.min() >= 0.0


@pytest.mark.long
@pytest.mark.parametrize(
    ("actions", "choose"),
    [
        ("sell_hold_buy", lambda rng: rng.integers(1, 3)),
        ({"name": "hold_buy_sell_close", "unit_fraction": 0.4}, lambda rng: rng.choice([0, 1, 1, 3])),
        ("target_position", lambda rng: rng.integers(2, 5)),
        ("target_weight", lambda rng: rng.choice([0.0, 0.5, 1.0], (1,)).astype(np.float32)),
        ("simplex_weights", lambda rng: rng.normal(0.0, 3.0, (2,)).astype(np.float32)),
        ("limit_offsets", lambda rng: np.array([1.0, rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0)], dtype=np.float32)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_by_default_nothing_is_bought_on_credit_whatever_the_actions(actions: Any, choose: Callable[[np.random.Generator], Any]) -> None:
    rng, row = np.random.default_rng(0), np.zeros(1, dtype=np.int64)
    traded = Traded(actions=actions, instrument=InstrumentConfig(), account=AccountConfig())
    accounts = traded.block.view.accounts
    for _ in range(300):
        traded.block.act(row, np.array([choose(rng)]))
        traded.bar(float(traded.price[0] * np.exp(0.02 * rng.standard_normal())), opens=float(traded.price[0] * rng.uniform(0.99, 1.02)))
        assert accounts.cash[0] >= -1e-9 * 10_000.0
        assert accounts.position[0, 0] >= 0.0
    assert accounts.fills[0] > 0
    assert accounts.costs[0] > 0.0


def test_orders_without_end_are_rejected_once_the_equity_is_spent() -> None:
    traded, row = Traded(actions="hold_buy_sell_close", instrument=InstrumentConfig(), account=AccountConfig()), np.zeros(1, dtype=np.int64)
    for _ in range(6):
        traded.block.act(row, np.array([1]))
        traded.bar(100.0)
    assert traded.told() == [("rejected", "margin")] * 3, "four quarters and their costs are more than there is"
    assert 0.75 < traded.block.view.accounts.exposure(row)[0, 0] <= 1.0
    assert traded.block.view.accounts.cash[0] > 0.0


@pytest.mark.parametrize("with_market_orders", [False, True])
def test_what_the_costs_take_of_an_order_for_the_whole_equity_is_told_only_on_request(with_market_orders: bool) -> None:
    traded = Traded(actions="sell_hold_buy", instrument=InstrumentConfig(), account=AccountConfig())
    traded.block.broker.log.with_market_orders = with_market_orders
    traded.block.act(np.zeros(1, dtype=np.int64), np.array([2]))
    traded.bar(100.0)
    usual = [("accepted", "none"), ("partly_filled", "none"), ("cancelled", "margin")]
    assert traded.told() == (usual if with_market_orders else [])
    assert 0.995 < traded.block.view.accounts.exposure(np.zeros(1, dtype=np.int64))[0, 0] <= 1.0
    gapped = Traded(actions="sell_hold_buy", instrument=InstrumentConfig(), account=AccountConfig())
    gapped.block.act(np.zeros(1, dtype=np.int64), np.array([2]))
    gapped.bar(110.0, opens=110.0)
    assert gapped.told() == [("cancelled", "margin")], "a gap is no cost"


def test_five_times_the_equity_is_refused_or_bounded_by_a_margin_call() -> None:
    actions = {"name": "sell_hold_buy", "unit_fraction": 5.0}
    row, buy = np.zeros(1, dtype=np.int64), np.array([2])
    with pytest.raises(SettingsError, match="max_leverage: expected at least 5, for actions that ask for 5 times the equity, received 1"):
        Traded(actions=actions, account=AccountConfig())
    called = Traded(actions=actions, account=AccountConfig(max_leverage=5.0, maintenance_fraction=0.15))
    called.block.act(row, buy)
    called.bar(100.0)
    for price in (98.0, 96.0, 94.0, 60.0):
        called.bar(price)
    assert called.position == 0.0
    assert called.equity == pytest.approx(10_000.0 - 500 * (100.0 - 94.0))

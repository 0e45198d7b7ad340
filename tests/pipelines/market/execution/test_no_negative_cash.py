"""Without leverage and shorts cash is never negative; with leverage a margin call ends what a fall would make of it.

But for a sale that brings less than its fee; so this market has no fixed or minimum fee.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.execution.broker import AccountConfig, SimulatedBroker
from policyserver.pipelines.market.instruments import InstrumentConfig, Instruments
from policyserver.pipelines.market.rows import ALL
from tests.pipelines.market.risk.traded import Traded
from tests.pipelines.market.test_against_the_oracle import ROWS, random_bar, random_requests


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


def test_five_times_the_equity_is_refused_or_bounded_by_a_margin_call() -> None:
    actions = {"name": "sell_hold_buy", "unit_fraction": 5.0}
    row, buy = np.zeros(1, dtype=np.int64), np.array([2])
    refused = Traded(actions=actions, account=AccountConfig(max_leverage=1.0))
    refused.block.act(row, buy)
    refused.bar(100.0)
    assert refused.told() == [("rejected", "margin")]
    called = Traded(actions=actions, account=AccountConfig(max_leverage=5.0, maintenance_fraction=0.15))
    called.block.act(row, buy)
    called.bar(100.0)
    for price in (98.0, 96.0, 94.0, 60.0):
        called.bar(price)
    assert called.position == 0.0
    assert called.equity == pytest.approx(10_000.0 - 500 * (100.0 - 94.0))

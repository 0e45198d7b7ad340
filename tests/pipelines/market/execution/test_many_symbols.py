"""An account holds more symbols than it may have live orders: each has an order in a margin call, and no row has another row's."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.instruments import InstrumentConfig, Instruments
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, OrderKind, OrderRequests
from policyserver.pipelines.market.rows import ALL

SYMBOLS = 17


def bar(price: float, rows: int) -> BarRows:
    prices = np.full((rows, SYMBOLS), price)
    return BarRows.of(np.zeros(rows, dtype=np.int64), prices, prices, prices, prices, prices)


def order(row: int, symbol: int, kind: OrderKind, quantity: float, price: float) -> OrderRequests:
    rows, symbols, kinds, good_for = np.array([[row], [symbol], [kind], [GOOD_TILL_CANCELLED]], dtype=np.int64)
    return OrderRequests(rows, symbols, kinds, np.array([quantity]), np.array([price]), good_for)


@pytest.mark.parametrize("max_live_orders", [1, 16])
def test_a_margin_call_closes_every_symbol_and_leaves_other_rows_alone(max_live_orders: int) -> None:
    rows = 2
    accounts = Accounts(rows, SYMBOLS)
    accounts.begin(ALL, 10_000.0, np.full((rows, SYMBOLS), 100.0))
    config = AccountConfig(max_leverage=2.0, maintenance_fraction=0.4, max_live_orders=max_live_orders)
    broker = SimulatedBroker(accounts, Instruments(rows, [InstrumentConfig() for _ in range(SYMBOLS)]), config)
    for symbol in range(SYMBOLS):
        assert broker.submit(order(0, symbol, OrderKind.MARKET, 11.0, np.nan)).all(), "an order of each symbol is always taken"
    assert broker.submit(order(1, 3, OrderKind.LIMIT, 5.0, 1.0)).all()
    for price in (100.0, 60.0, 60.0):
        broker.fill(ALL, bar(price, rows))
        accounts.value(ALL)
        accounts.settle(ALL)
        broker.call_margins(ALL)
    assert (accounts.position == 0).all(), "all of the called account, and nothing of the other"
    assert broker.table.count.tolist() == [0, 1]
    assert accounts.fills.tolist() == [2 * SYMBOLS, 0]

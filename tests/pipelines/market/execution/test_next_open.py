"""Market orders that wait for the next open in a column: to the bit what the order table makes of them, and no order is lost to it."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.instruments import InstrumentConfig, Instruments
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, Fills, OrderKind, OrderRequests
from policyserver.pipelines.market.rows import ALL

ROWS = 12
MONEY = ("cash", "equity", "entry_equity", "fees", "slippage", "turnover", "realised", "borrow_costs")
COUNTS = ("fills", "orders", "called", "position", "average_price", "price")


def books(leverage: float | None, maintenance: float = 0.0) -> tuple[Accounts, SimulatedBroker]:
    accounts = Accounts(ROWS, 1)
    accounts.begin(ALL, 10_000.0, np.full((ROWS, 1), 100.0))
    config = AccountConfig(max_leverage=leverage, maintenance_fraction=maintenance)
    return accounts, SimulatedBroker(accounts, Instruments(ROWS, [InstrumentConfig(borrow_fraction=0.0001)]), config)


def orders(rows: np.ndarray, quantity: np.ndarray, kind: OrderKind = OrderKind.MARKET, price: float = 0.0) -> OrderRequests:
    m = len(rows)
    zeros = np.zeros(m, dtype=np.int64)
    return OrderRequests(rows, zeros, zeros + int(kind), quantity, np.full(m, price), np.full(m, GOOD_TILL_CANCELLED))


def bar(rng: np.random.Generator, price: np.ndarray) -> BarRows:
    open_ = price * np.exp(rng.normal(0, 0.02, price.shape))
    close = open_ * np.exp(rng.normal(0, 0.05, price.shape))
    zeros = np.zeros(len(price), dtype=np.int64)
    return BarRows.of(zeros, open_, np.maximum(open_, close), np.minimum(open_, close), close, np.ones_like(close))


def order_of(columns: Fills) -> list[bytes]:
    by_row = np.argsort(columns.rows, kind="stable")
    return [getattr(columns, name)[by_row].tobytes() for name in Fills.__slots__]


@pytest.mark.long
@pytest.mark.parametrize("leverage", [None, 1.0, 3.0])
@pytest.mark.parametrize("kind", [OrderKind.MARKET, OrderKind.LIMIT])
def test_a_column_keeps_the_books_of_the_table(leverage: float | None, kind: OrderKind) -> None:
    """`kind`: of an order that some rows give beside; a limit order takes all that wait into the table."""
    rng = np.random.default_rng(3)
    both = [books(leverage, 0.0 if leverage is None else 0.2) for _ in range(2)]
    (accounts, broker), (expected, table) = both
    table._next_open.is_usual = False
    took_column = 0
    for _ in range(60):
        rows = np.flatnonzero(rng.random(ROWS) < 0.5)
        share = rng.choice([-1.0, 0.0, 0.5, 1.0, 2.0], len(rows), p=[0.3, 0.2, 0.2, 0.29, 0.01])
        target = share * accounts.equity[rows] / accounts.price[rows, 0]
        quantity = target - accounts.position[rows, 0]
        given = [orders(rows, quantity)]
        if rng.random() < 0.3:
            given.append(orders(rows[:3], -quantity[:3], kind, float(accounts.price[0, 0])))
        if rng.random() < 0.1:
            given.append(orders(rows[3:], np.full(len(rows[3:]), np.nan)))
        for requests in given:
            np.testing.assert_array_equal(broker.submit(requests), table.submit(requests))
        took_column += broker._next_open.waits
        if rng.random() < 0.2:
            broker.cancel_all(rows[::2])
            table.cancel_all(rows[::2])
        if rng.random() < 0.2:
            broker.begin(rows[1::2])
            table.begin(rows[1::2])
        played = ALL if rng.random() < 0.7 else np.arange(0, ROWS, 2)
        new = bar(rng, accounts.price[played])
        for each, its in both:
            its.fill(played, new)
            each.value(ALL)
            each.settle(ALL)
            its.call_margins(ALL)
        assert order_of(broker.take_fills()) == order_of(table.take_fills())
        told, expected_told = broker.take_events().told(), table.take_events().told()
        by_row, expected_by_row = np.argsort(told.rows, kind="stable"), np.argsort(expected_told.rows, kind="stable")
        for name in ("rows", "number", "quantity", "left", "state", "reason", "in_bar"):
            assert getattr(told, name)[by_row].tolist() == getattr(expected_told, name)[expected_by_row].tolist(), name
        for name in (*MONEY, *COUNTS):
            assert getattr(accounts, name).tobytes() == getattr(expected, name).tobytes(), name
    assert took_column >= 5, "else nothing was compared"


def test_who_looks_at_the_table_finds_what_waits() -> None:
    accounts, broker = books(None)
    rows = np.array([1, 4])
    broker.submit(orders(rows, np.array([5.0, -5.0])))
    assert broker._next_open.waits
    assert broker.table.count[rows].tolist() == [1, 1]
    assert not broker._next_open.waits
    assert broker.cancel(rows, np.array([0, 0])).tolist() == [True, True]
    broker.fill(ALL, bar(np.random.default_rng(0), accounts.price))
    assert not len(broker.take_fills().rows)

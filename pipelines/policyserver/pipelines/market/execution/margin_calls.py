"""Margin calls: which accounts are to be closed, and by which orders."""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.order_table import (
    BARS_LEFT,
    FORCED,
    KIND,
    LEFT,
    LIVE,
    MARKET,
    N_COLUMNS,
    NUMBER,
    QUANTITY,
    SIDE,
    SYMBOL,
)
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED
from policyserver.pipelines.market.rows import Rows


class MarginCalls:
    """Watches the accounts of n rows whose leverage has a limit."""

    def __init__(self, accounts: Accounts, maintenance_fraction: float) -> None:
        """Call accounts whose equity is below a fraction of the gross exposure."""
        self._accounts = accounts
        self._fraction = maintenance_fraction
        self._all_rows = np.arange(len(accounts.cash))
        self.has_called = False
        """Whether an account is called: only then is there an order that the trader hasn't given."""

    def release(self, rows: Rows) -> IntArray:
        """Return the rows whose accounts were called and hold nothing any more: they are no longer called. To follow the mark."""
        if not self.has_called:
            return NO_ROWS
        accounts = self._accounts
        closed = accounts.called[rows] & ~accounts.position[rows].any(axis=1)
        released = self._all_rows[rows][closed]
        accounts.called[released] = False
        self.has_called = bool(np.count_nonzero(accounts.called))
        return released

    def due(self, rows: Rows) -> IntArray:
        """Return the rows that are to be called now; an account that has been is so until it is released. To follow `release`."""
        accounts = self._accounts
        equity = accounts.equity[rows]
        if not self._fraction and not np.count_nonzero(equity < 0):
            return NO_ROWS  # nearly always: without a fraction to keep, none but a lost account is called
        gross = accounts.gross(rows)
        below = (gross > 0) & (equity < self._fraction * gross)
        if not np.count_nonzero(below):
            return NO_ROWS
        return self._all_rows[rows][below & ~accounts.called[rows]]

    def orders(self, row: int) -> list[FloatArray]:
        """Call an account; return the orders that close its positions, one of each symbol held, float64 (1, columns) each."""
        accounts, orders = self._accounts, []
        accounts.called[row] = self.has_called = True
        for symbol in accounts.position[row].nonzero()[0].tolist():
            held = accounts.position[row, symbol]
            order = np.zeros((1, N_COLUMNS))
            order[0, [NUMBER, SYMBOL, KIND, SIDE]] = accounts.orders[row], symbol, MARKET, -np.sign(held)
            order[0, [QUANTITY, LEFT, BARS_LEFT, FORCED, LIVE]] = abs(held), abs(held), GOOD_TILL_CANCELLED, 1.0, 1.0
            accounts.orders[row] += 1
            orders.append(order)
        return orders


NO_ROWS = np.zeros(0, dtype=np.int64)

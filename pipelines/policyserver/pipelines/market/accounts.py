"""The accounts of n rows as arrays: cash, K positions, costs, equity and what it was.

Equity is always cash + the sum of position * price; costs only take from it. What a row aims at is no part of its account: see `schemes`.
"""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.rows import Rows

_ZERO, _ONE = np.array(0.0), np.array(1.0)
"""An array in an expression is taken as it is; a number is looked at and converted each time."""
_TINY = np.array(1e-200)
"""No position that an account can have is an infinite multiple of an equity above it."""
_DUST = 1e-12
"""What is left of a quantity counts as nothing when it is at most this fraction of the whole."""


class Accounts:
    """Cash and positions of n rows in K symbols. One owner at a time: not thread-safe."""

    def __init__(self, n_rows: int, n_symbols: int) -> None:
        """Hold nothing."""
        # Columns that begin together, and those that are compared with the mark before, are rows of one array: one change for all of them.
        self._amounts = np.ones((6, n_rows))
        self._sums = np.zeros((7, n_rows))
        self._at_mark = np.zeros((5, n_rows))
        self.initial_equity, self.cash, self.equity, self.marked_equity, self.highest_equity, self.entry_equity = self._amounts
        self.turnover, self.realised, self.fees, self.slippage, self._n_orders, self.borrow_costs, self.drawdown = self._sums
        self.position = np.zeros((n_rows, n_symbols))
        """Units held, float64 (n, K), negative when short."""
        self.price = np.ones((n_rows, n_symbols))
        """Prices that the positions are valued at, float64 (n, K): those of the last fill or mark."""
        self.average_price = np.zeros((n_rows, n_symbols))
        """Average prices that the positions were opened at, float64 (n, K); 0 without one."""
        self.called = np.zeros(n_rows, dtype=np.bool_)
        """Whether a margin call closes the positions, bool (n,)."""
        self.fills = np.zeros(n_rows, dtype=np.int64)
        """Fills so far, int64 (n,)."""
        self.orders = np.zeros(n_rows, dtype=np.int64)
        """Orders submitted so far, refused ones too, int64 (n,)."""
        self.last_bar = np.zeros((5, n_rows))
        """What `in_bar` was at the last mark, float64 (5, n)."""

    initial_equity: FloatArray
    """Cash at the start, float64 (n,)."""
    cash: FloatArray
    """Cash, float64 (n,); negative when positions cost more than there was."""
    equity: FloatArray
    """cash + sum(position * price) as of the last fill or mark, float64 (n,)."""
    marked_equity: FloatArray
    """Equity at the mark before, where the next reward starts, float64 (n,)."""
    highest_equity: FloatArray
    """Highest equity of all marks so far, float64 (n,)."""
    entry_equity: FloatArray
    """Equity right after the last fill, float64 (n,)."""
    turnover: FloatArray
    """Notional traded so far, float64 (n,)."""
    realised: FloatArray
    """Profit taken so far, before fees, float64 (n,)."""
    fees: FloatArray
    """Fees paid so far, in cash, float64 (n,)."""
    slippage: FloatArray
    """Cash lost to spread and slippage so far, float64 (n,)."""
    borrow_costs: FloatArray
    """Cash paid for shorts so far, float64 (n,)."""
    drawdown: FloatArray
    """Largest fall of the equity below its highest value before, a fraction of that, float64 (n,)."""

    def begin(self, rows: Rows, initial_equity: float, prices: FloatArray) -> None:
        """Open accounts without positions, at prices of float64 (m, K)."""
        self._amounts[:, rows] = initial_equity
        self._sums[:, rows] = self._at_mark[:, rows] = 0.0
        self.fills[rows] = self.orders[rows] = 0
        self.called[rows] = False
        self.position[rows] = self.average_price[rows] = 0.0
        self.price[rows] = prices

    # What is known -------------------------------------------------------------------------------------------------------------------

    @property
    def costs(self) -> FloatArray:
        """Fees, slippage and borrow costs so far, in cash, float64 (n,)."""
        return self.fees + self.slippage + self.borrow_costs

    @property
    def profit(self) -> FloatArray:
        """Simple profit so far, costs taken off, as a fraction of the initial equity, float64 (n,)."""
        return self.equity / self.initial_equity - 1.0

    def exposure(self, rows: Rows) -> FloatArray:
        """Return the value of each position as a signed fraction of the equity, float64 (m, K); 0 without equity."""
        equity = self.equity[rows][:, None]
        value = self.position[rows] * self.price[rows]
        if np.count_nonzero(equity > _TINY) == len(equity):  # nearly always: no division can overflow
            return value / equity
        with np.errstate(over="ignore"):  # of an equity next to nothing it is infinite
            return np.divide(value, equity, out=np.zeros_like(value), where=equity > 0)

    def gross(self, rows: Rows) -> FloatArray:
        """Return the sum of the values of all positions, shorts positive, in cash, float64 (m,)."""
        return total_of(np.abs(self.position[rows]) * self.price[rows])

    def cells(self, rows: IntArray, symbol: IntArray) -> IntArray:
        """Return the places of one symbol each of m rows in a flattened (n, K) array, int64 (m,): an index of two parts costs more."""
        n_symbols = self.position.shape[1]
        return rows if n_symbols == 1 else rows * n_symbols + symbol

    def in_bar(self, rows: Rows) -> FloatArray:
        """Return turnover, realised profit less fees, fees, slippage, and orders since the mark before, float64 (5, m)."""
        return self._since_mark(self._now(rows), rows)

    def orders_in_bar(self, rows: Rows) -> FloatArray:
        """Return the orders since the mark before, float64 (m,)."""
        return self.orders[rows] - self._at_mark[4, rows]

    # What happens --------------------------------------------------------------------------------------------------------------------

    def worth(self, rows: Rows) -> FloatArray:
        """Return what the accounts are worth at the prices that there are, float64 (m,); `equity` is left as it is."""
        return self.cash[rows] + total_of(self.position[rows] * self.price[rows])

    def value(self, rows: Rows) -> None:
        """Value the positions at their prices."""
        self.equity[rows] = self.worth(rows)

    def trade(
        self, rows: IntArray, symbol: IntArray, quantity: FloatArray, reference: FloatArray, price: FloatArray, fee: FloatArray
    ) -> None:
        """Book a fill each of m different rows.

        Args:
            rows: Rows, int64 (m,).
            symbol: Numbers of the symbols, int64 (m,).
            quantity: Units bought (positive) or sold (negative), float64 (m,).
            reference: Prices that the market has, float64 (m,), at which the positions are valued already.
            price: Prices paid or received, float64 (m,).
            fee: Fees, in cash, float64 (m,).
        """
        cells = self.cells(rows, symbol)
        units, held = np.abs(quantity), self.position.take(cells)
        size, new = np.abs(held), held + quantity
        is_closed = np.abs(new) <= _DUST * np.maximum(size, units)
        if np.count_nonzero(is_closed):
            new[is_closed] = 0.0
        self._average(rows, cells, held, size, new, quantity, units, price)
        self.position.reshape(-1)[cells] = new
        self.cash[rows] = self.cash.take(rows) - (quantity * price + fee)
        self.fees[rows] = self.fees.take(rows) + fee
        self.slippage[rows] = self.slippage.take(rows) + units * np.abs(price - reference)
        self.turnover[rows] = self.turnover.take(rows) + units * price
        self.fills[rows] = self.fills.take(rows) + 1
        self.equity[rows] = self.entry_equity[rows] = self.worth(rows)

    def trade_all(self, quantity: FloatArray, units: FloatArray, distance: FloatArray, price: FloatArray, fee: FloatArray) -> None:
        """Book a fill of the only symbol in each row whose quantity is not 0, as `trade` does: whole columns are changed in place.

        Args:
            quantity: Units bought (positive) or sold (negative), float64 (n,).
            units: The same without the sign.
            distance: Of the prices paid from those that the market has, at which the positions are valued already, float64 (n,).
            price: Prices paid or received, float64 (n,).
            fee: Fees, in cash, float64 (n,).
        """
        position, average_price = self.position[:, 0], self.average_price[:, 0]
        is_traded, notional = units > _ZERO, units * price
        size, new = np.abs(position), position + quantity
        average = average_price.copy()
        np.divide(size * average + notional, size + units, out=average_price, where=is_traded)
        closes = position * quantity < _ZERO
        if np.count_nonzero(closes):
            np.putmask(new, closes & (np.abs(new) <= _DUST * np.maximum(size, units)), _ZERO)
            self.realised += np.minimum(units, size) * closes * (price - average) * np.sign(position)
            crosses = new * position < _ZERO
            np.putmask(average_price, closes, average)
            np.putmask(average_price, closes & crosses, price)
            np.putmask(average_price, closes & (new == _ZERO), _ZERO)
        position[:] = new
        self.cash -= quantity * price + fee
        self.fees += fee
        self.slippage += units * distance
        self.turnover += notional
        self.fills += is_traded
        worth = self.cash + position * self.price[:, 0]
        np.putmask(self.equity, is_traded, worth)
        np.putmask(self.entry_equity, is_traded, worth)

    def _average(
        self,
        rows: IntArray,
        cells: IntArray,
        held: FloatArray,
        size: FloatArray,
        new: FloatArray,
        quantity: FloatArray,
        units: FloatArray,
        price: FloatArray,
    ) -> None:
        """Keep the average prices of positions, and the profit that is taken when they get smaller."""
        average = self.average_price.take(cells)
        average_price = (size * average + units * price) / (size + units)
        closes = held * quantity < 0
        if np.count_nonzero(closes):
            closing = np.minimum(units, size) * closes
            self.realised[rows] = self.realised.take(rows) + closing * (price - average) * np.sign(held)
            kept = np.where(new * held < 0, price, average)
            average_price = np.where(new == 0, 0.0, np.where(closes, kept, average_price))
        self.average_price.reshape(-1)[cells] = average_price

    def settle(self, rows: Rows) -> None:
        """Take the equity as that of a mark: the next reward starts from here."""
        equity = self.equity[rows]
        self.marked_equity[rows] = equity
        highest = np.maximum(self.highest_equity[rows], equity)
        self.highest_equity[rows] = highest
        self.drawdown[rows] = np.maximum(self.drawdown[rows], _ONE - equity / highest)
        now = self._now(rows)
        self.last_bar[:, rows] = self._since_mark(now, rows)
        self._at_mark[:, rows] = now

    def _since_mark(self, now: FloatArray, rows: Rows) -> FloatArray:
        since = now - self._at_mark[:, rows]
        since[1] -= since[2]
        return since

    def _now(self, rows: Rows) -> FloatArray:
        self._n_orders[:] = self.orders
        return self._sums[:5, rows]


def total_of(values: FloatArray) -> FloatArray:
    """Return the sums of rows, float64 (m,): most have one symbol and one term, and a sum over one costs ten times as much."""
    total: FloatArray = values[:, 0] if values.shape[1] == 1 else np.add.reduce(values, axis=1)
    return total

"""Market orders of one symbol that are over at the next open: the usual case, which takes no place in the order table.

What is asked for fills at the open as far as the leverage allows, and the rest is cancelled: nothing is left to be matched, aged or
replaced. So an order is a number in a column of all rows, 0 for no order, and a bar is some arithmetic on whole columns. The numbers
are those of `filling`, bit for bit; what is not usual (ticks, lots, volume, fees of an order, limits on openings, a second order of a row)
goes there.
"""

from __future__ import annotations

import math

import numpy as np

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.event_log import SMALL_CUT, EventLog
from policyserver.pipelines.market.execution.filling import EXCESS, FIT, LEAST
from policyserver.pipelines.market.execution.order_table import BARS_LEFT, LEFT, LIVE, N_COLUMNS, NUMBER, QUANTITY, SIDE
from policyserver.pipelines.market.instruments import Instruments
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, Fills, OrderRequests, Reason

_FITS = np.array(1 + FIT)
_LEAST = np.array(LEAST)
_ZERO = np.array(0.0)
_SMALL_CUT = np.array(SMALL_CUT)
_EXCESS = np.array(1 + EXCESS)


class NextOpen:
    """Market orders of n rows that wait for the next open."""

    def __init__(self, accounts: Accounts, instruments: Instruments, log: EventLog, leverage: float) -> None:
        """Book what fills in `accounts`, and tell it to `log`; gross exposure is at most `leverage` times the equity after it."""
        self._accounts = accounts
        self._log = log
        self._has_margin = leverage < math.inf
        self._leverage = np.array(leverage)
        n_rows, n_symbols = accounts.position.shape
        unusual = instruments.has_ticks or instruments.has_lots or instruments.looks_at_volume or instruments.bans_shorts
        self.is_usual = n_symbols == 1 and not unusual and not instruments.has_order_fees
        """Whether orders of these instruments may wait here."""
        self._cost, self._fee = instruments.cost_fraction.reshape(-1)[:n_rows], instruments.fee_fraction.reshape(-1)[:n_rows]
        self._quantity = np.zeros(n_rows)
        self._number = np.zeros(n_rows, dtype=np.int64)
        self.waits = False
        """Whether an order waits."""

    def take(self, requests: OrderRequests) -> bool:
        """Take market orders of different rows, if all of them are accepted; return whether they are taken."""
        rows, signed, accounts = requests.rows, requests.quantity, self._accounts
        if np.count_nonzero(np.abs(signed) < math.inf) < len(rows) or np.count_nonzero(signed) < len(rows):
            return False
        if self.waits and np.count_nonzero(self._quantity.take(rows)):
            return False
        if self._has_margin:
            position, price = accounts.position.take(rows), accounts.price.take(rows)
            equity = accounts.cash.take(rows) + position * price
            after = np.abs(position + signed)
            exceeds = after * price > self._leverage * equity * _EXCESS
            if np.count_nonzero(exceeds) and np.count_nonzero((after > np.abs(position)) & exceeds):
                return False
        numbers = accounts.orders.take(rows)
        accounts.orders[rows] = numbers + 1
        self._quantity[rows], self._number[rows] = signed, numbers
        self.waits = True
        return True

    def waiting(self, rows: IntArray) -> FloatArray | None:
        """Return the units that wait of rows, float64 (m, 1); None: none."""
        units = self._quantity.take(rows)
        return units[:, None] if np.count_nonzero(units) else None

    def give_back(self) -> tuple[IntArray, FloatArray]:
        """Return the rows of all orders that wait, and the orders as they stand in an `OrderTable`; none waits any more."""
        rows = self._quantity.nonzero()[0]
        orders = self._orders(rows, self._quantity.take(rows))
        orders[:, LIVE] = 1.0
        self.forget(rows)
        return rows, orders

    def forget(self, rows: slice | IntArray) -> None:
        """Forget the orders of rows."""
        self._quantity[rows] = 0.0
        self.waits = bool(np.count_nonzero(self._quantity))

    def _orders(self, rows: IntArray, signed: FloatArray) -> FloatArray:
        orders = np.zeros((len(rows), N_COLUMNS))
        orders[:, NUMBER], orders[:, SIDE] = self._number.take(rows), np.sign(signed)
        orders[:, QUANTITY] = orders[:, LEFT] = np.abs(signed)
        orders[:, BARS_LEFT] = GOOD_TILL_CANCELLED
        return orders

    def fill(self) -> None:
        """Fill the orders of all rows at the opens, which are the accounts' prices."""
        accounts, wanted = self._accounts, self._quantity
        self._quantity, self.waits = np.zeros(len(wanted)), False
        reference, side = accounts.price[:, 0], np.sign(wanted)
        price = reference + side * (reference * self._cost)
        distance = np.abs(price - reference)
        units = asked = np.abs(wanted)
        if self._has_margin:
            units = self._within_margin(asked, side, reference, price, distance)
        signed = side * units
        fee = self._fee * (units * price)
        accounts.trade_all(signed, units, distance, price, fee)
        rows = units.nonzero()[0]
        if len(rows):
            number, symbol = self._number.take(rows), np.zeros(len(rows), dtype=np.int64)
            filled = signed.take(rows), reference.take(rows), price.take(rows), fee.take(rows)
            self._log.add_fills(Fills(rows, symbol, number, *filled))
        if units is not asked:
            self._tell_cuts(wanted, asked, asked - units)

    def _within_margin(
        self, asked: FloatArray, side: FloatArray, reference: FloatArray, price: FloatArray, distance: FloatArray
    ) -> FloatArray:
        """Return how many units the leverage allows, float64 (n,); `asked` itself where that is all of them."""
        accounts, leverage = self._accounts, self._leverage
        held = accounts.position[:, 0]
        closing = np.minimum(asked, np.maximum(-side * held, _ZERO))
        opening = asked - closing
        worth = accounts.cash + held * reference - closing * distance - self._fee * (closing * price)
        exposure = np.abs(held) * (closing == _ZERO) * reference
        room = (leverage * worth - exposure) / (reference + leverage * (distance + self._fee * price))
        fit = np.maximum(_ZERO, room)
        fine = opening <= fit * _FITS
        if np.count_nonzero(fine) == len(fine):
            return asked
        fit = np.where(fit <= _LEAST * opening, _ZERO, fit)
        return np.where(fine, asked, closing + fit)

    def _tell_cuts(self, wanted: FloatArray, asked: FloatArray, left: FloatArray) -> None:
        """Tell of the orders of which more than a small part was cut: of others the log doesn't want to hear."""
        rows = (left > _SMALL_CUT * asked).nonzero()[0]
        if len(rows):
            orders = self._orders(rows, wanted.take(rows))
            orders[:, LEFT] = left.take(rows)
            self._log.add_cut(rows, orders, np.full(len(rows), int(Reason.MARGIN)))

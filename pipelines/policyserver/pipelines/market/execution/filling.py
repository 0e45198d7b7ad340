"""How much of a matched order fills, at which price, and for which fee."""

from __future__ import annotations

import math

import numpy as np

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.execution.event_log import EventLog
from policyserver.pipelines.market.execution.opening import Opening, OpeningLimits
from policyserver.pipelines.market.execution.order_table import (
    FEE_PAID,
    FILLED,
    FORCED,
    KIND,
    LEFT,
    LIVE,
    MATCHED,
    NOTIONAL,
    NUMBER,
    PRICE,
    QUANTITY,
    REDUCE_ONLY,
    SIDE,
    SYMBOL,
    TRIGGERED,
    OrderTable,
)
from policyserver.pipelines.market.instruments import Instruments, rounded
from policyserver.pipelines.market.orders import KIND_FACTS, Fills, Reason, State

_DUST = 1e-12
"""What is left of a quantity counts as nothing when it is at most this fraction of the whole."""
EXCESS = 1e-9
"""Fraction by which a projected exposure may exceed the allowed one: what rounding can make of it."""
FIT = 1e-12
"""A quantity that exceeds what fits by at most this fraction fits."""
_NO_REASON, _MARGIN = (np.array(int(reason)) for reason in (Reason.NONE, Reason.MARGIN))
LEAST = 1e-9
"""A part of which at most this fraction fits is not opened."""


class Filling:
    """Fills orders that were matched, one of each row at a time."""

    def __init__(self, accounts: Accounts, instruments: Instruments, table: OrderTable, log: EventLog, leverage: float) -> None:
        """Book what fills in `accounts`, and tell it to `log`; gross exposure is at most `leverage` times the equity after it."""
        self._accounts = accounts
        self._instruments = instruments
        self._table = table
        self._log = log
        self._leverage = leverage
        self._has_margin = leverage < math.inf
        self.limits: OpeningLimits | None = None
        """What else bounds openings."""
        self.has_forced = False
        """Whether there may be an order that a margin call has given."""
        self.leaves_live = False
        """Whether an order that was looked at in this bar is still live."""
        self._at_open_alone = False
        self._used = np.zeros(accounts.position.shape)

    def begin_bar(self, rows: IntArray, bar: BarRows, *, at_open_alone: bool) -> None:
        """Prepare for a bar of some rows; `at_open_alone`: whether none of their orders is of a kind that fills later in a bar."""
        self._bar = bar
        self._at_open_alone = at_open_alone
        self.leaves_live = False
        if self._instruments.looks_at_volume:
            self._used[rows] = 0.0

    def fill(self, places: IntArray, rows: IntArray, slot: IntArray | int, reference: FloatArray) -> None:
        """Fill one matched order of each row, as far as volume, shorts and margin allow.

        Args:
            places: Where the rows are in the bar's columns, int64 (m,).
            rows: The rows, int64 (m,).
            slot: Slot of their orders, or int64 (m,).
            reference: The market's prices, float64 (m,).
        """
        at = self._table.places(rows, slot)
        orders = self._table.take(at)
        symbol = orders[:, SYMBOL].astype(np.int64)
        cells = self._accounts.cells(rows, symbol)
        if not self._at_open_alone:
            orders[:, MATCHED] = 1.0
            orders[:, TRIGGERED] = KIND_FACTS.is_trigger[orders[:, KIND].astype(np.int64)]
        self._accounts.price.reshape(-1)[cells] = reference
        price = self._price(places, cells, orders, symbol, reference)
        quantity = self._within_volume(places, rows, orders, symbol)
        if self._has_margin or self._instruments.bans_shorts or self.limits is not None or self._table.has_reduce_only:
            quantity, reason = self._within_account(rows, cells, orders, symbol, quantity, reference, price)
        else:
            reason = None
        self._book(rows, cells, at, orders, symbol, quantity, reference, price, reason)

    def _price(self, places: IntArray, cells: IntArray, orders: FloatArray, symbol: IntArray, reference: FloatArray) -> FloatArray:
        """Return the prices paid or received: costs included, on the grid, no limit filled worse than it is."""
        side = orders[:, SIDE]
        price = reference + side * (reference * self._instruments.cost_fraction.take(cells))
        if self._instruments.has_ticks:
            price = rounded(price, self._instruments.tick.take(cells), side > 0)
        if self._at_open_alone:
            return price
        limit = KIND_FACTS.is_limit[orders[:, KIND].astype(np.int64)]
        if np.count_nonzero(limit):
            bar, bound = self._bar, orders[:, PRICE]
            high, low = bar.high[places, symbol], bar.low[places, symbol]
            if self._instruments.has_spread:  # the highest ask for a purchase, the lowest bid for a sale
                traded_side = 1.0 + side * self._instruments.half_spread.take(cells)
                high, low = high * traded_side, low * traded_side
            highest = np.minimum(np.minimum(bound, high), price)
            lowest = np.maximum(np.maximum(bound, low), price)
            price = np.where(limit, np.where(side > 0, highest, lowest), price)
        return price

    def _within_volume(self, places: IntArray, rows: IntArray, orders: FloatArray, symbol: IntArray) -> FloatArray:
        """Return how much of what is left the bar's volume allows."""
        left = orders[:, LEFT].copy()
        if not self._instruments.looks_at_volume:
            return left
        fraction = self._instruments.volume_fraction[rows, symbol]
        finite = np.isfinite(fraction)
        cap = np.where(finite, np.where(finite, fraction, 0.0) * self._bar.volume[places, symbol], math.inf)
        rest = cap - self._used[rows, symbol]
        rest = np.where(finite & (rest <= _DUST * np.where(finite, cap, 0.0)), 0.0, rest)
        fits = np.where(left <= rest, left, 0.0)
        part = np.where(left <= rest, 0.0, rest)
        return np.where(left <= rest, fits, self._to_lots(part, rows, symbol))

    def _to_lots(self, quantity: FloatArray, rows: IntArray, symbol: IntArray) -> FloatArray:
        return rounded(quantity, self._instruments.lot[rows, symbol], False) if self._instruments.has_lots else quantity

    def _within_account(
        self,
        rows: IntArray,
        cells: IntArray,
        orders: FloatArray,
        symbol: IntArray,
        quantity: FloatArray,
        reference: FloatArray,
        price: FloatArray,
    ) -> tuple[FloatArray, IntArray | None]:
        """Return how much of a quantity the account may open, and for what reason what is left of each order is cancelled, 0 for none.

        Where nothing is cut there are no reasons.
        """
        side = orders[:, SIDE]
        held = self._accounts.position.take(cells)
        closing = np.minimum(quantity, np.maximum(-side * held, 0.0))
        opening = quantity - closing
        fit, reason = opening, _NO_REASON
        if self._has_margin or self.limits is not None:
            of_fill = self._opening(rows, cells, orders, symbol, side, held, closing, reference, price)
            if self._has_margin:
                exposure = of_fill.held * reference
                if self._accounts.position.shape[1] > 1:
                    exposure += self._others(rows, symbol)
                fit = of_fill.within(self._leverage, exposure)
                reason = _MARGIN
            if self.limits is not None:
                room, why = self.limits.room(of_fill)
                tighter = (opening > 0) & (room < fit)
                fit, reason = np.where(tighter, room, fit), np.where(tighter, why, reason)
        fine = opening <= fit * (1 + FIT)  # also where nothing is opened, for nothing always fits
        if self._instruments.bans_shorts:
            banned = ~self._instruments.short_allowed.take(cells) & (side < 0)
            fit = np.where(banned, 0.0, fit)
            reason = np.where(banned, int(Reason.SHORT), reason)
            fine = np.where(banned, opening <= _DUST * quantity, fine)
        if self._table.has_reduce_only:
            reduces = orders[:, REDUCE_ONLY] > 0
            if np.count_nonzero(reduces):
                fine = np.where(reduces, opening <= _DUST * quantity, fine)
                if np.count_nonzero(fine) < len(fine):
                    fit, reason = np.where(reduces, 0.0, fit), np.where(reduces, int(Reason.REDUCE_ONLY), reason)
        if self.has_forced:
            fine |= orders[:, FORCED] > 0
        if np.count_nonzero(fine) == len(fine):
            return quantity, None
        fit = np.where(fit <= LEAST * opening, 0.0, fit)
        cut = self._to_lots(np.where(fine, 0.0, closing + fit), rows, symbol)
        return np.where(fine, quantity, cut), np.where(fine, 0, reason)

    def _opening(
        self,
        rows: IntArray,
        cells: IntArray,
        orders: FloatArray,
        symbol: IntArray,
        side: FloatArray,
        held: FloatArray,
        closing: FloatArray,
        reference: FloatArray,
        price: FloatArray,
    ) -> Opening:
        """Return what is to be known of fills to tell how much of them may be opened."""
        accounts, instruments = self._accounts, self._instruments
        if self.limits is not None:
            accounts.value(rows)
            equity = accounts.equity.take(rows)
        else:
            equity = accounts.worth(rows)
        distance, fraction = np.abs(price - reference), instruments.fee_fraction.take(cells)
        paid, closed = orders[:, FEE_PAID], closing * price
        before = equity - closing * distance
        in_same_direction = np.abs(held) * (closing == 0)
        if not instruments.has_order_fees:
            worth = before - (fraction * (orders[:, NOTIONAL] + closed) - paid)
            cost = distance + fraction * price
            return Opening(rows, symbol, side, in_same_direction, reference, worth, worth, cost, cost)
        per_unit = instruments.fee_per_unit.take(cells)
        least = instruments.fee_minimum.take(cells) - paid
        otherwise = (
            instruments.fee_fixed.take(cells) + per_unit * (orders[:, FILLED] + closing) + fraction * (orders[:, NOTIONAL] + closed) - paid
        )
        unit = per_unit + fraction * price
        return Opening(rows, symbol, side, in_same_direction, reference, before - least, before - otherwise, distance, distance + unit)

    def _others(self, rows: IntArray, symbol: IntArray) -> FloatArray:
        """Return the value of the positions in other symbols, shorts positive, float64 (m,)."""
        values = np.abs(self._accounts.position[rows]) * self._accounts.price[rows]
        values[np.arange(len(rows)), symbol] = 0.0
        total: FloatArray = values.sum(axis=1)
        return total

    def _book(
        self,
        rows: IntArray,
        cells: IntArray,
        at: IntArray,
        orders: FloatArray,
        symbol: IntArray,
        quantity: FloatArray,
        reference: FloatArray,
        price: FloatArray,
        reason: IntArray | None,
    ) -> None:
        """Book fills, those of nothing apart, and cancel what is left of orders that are cut for a reason."""
        instruments, every, all_places = self._instruments, rows, at
        fills = quantity > 0
        live = 0
        if np.count_nonzero(fills) < len(rows):
            self._table.put(at, orders)
            rows, cells, symbol, quantity = rows[fills], cells[fills], symbol[fills], quantity[fills]
            reference, price, orders = reference[fills], price[fills], orders[fills]
            at = at[fills]
        if len(rows):
            orders[:, FILLED] += quantity
            orders[:, NOTIONAL] += quantity * price
            due = instruments.fee_fraction.take(cells) * orders[:, NOTIONAL]
            if instruments.has_order_fees:
                due = instruments.fee_fixed.take(cells) + instruments.fee_per_unit.take(cells) * orders[:, FILLED] + due
                due = np.maximum(instruments.fee_minimum.take(cells), due)
            fee = due - orders[:, FEE_PAID]
            orders[:, FEE_PAID] = due
            left = orders[:, LEFT] - quantity
            left[left <= _DUST * orders[:, QUANTITY]] = 0.0
            orders[:, LEFT] = left
            orders[:, LIVE] = is_left = left > 0
            self._table.put(at, orders)
            if instruments.looks_at_volume:
                self._used[rows, symbol] += quantity
            live = int(np.count_nonzero(is_left))
            self._log.add_usual(rows, orders, State.FILLED)
            signed = orders[:, SIDE] * quantity
            self._accounts.trade(rows, symbol, signed, reference, price, fee)
            self._log.add_fills(Fills(rows, symbol, orders[:, NUMBER].astype(np.int64), signed, reference, price, fee))
        live += len(every) - len(rows)
        if live and reason is not None:
            live -= self._cut(every, all_places, reason)
        self.leaves_live |= live > 0

    def _cut(self, rows: IntArray, at: IntArray, reason: IntArray) -> int:
        """Cancel what is left of orders that the account does not carry; return how many."""
        orders = self._table.take(at)
        cut = ((reason > 0) & (orders[:, LIVE] > 0)).nonzero()[0]
        if not len(cut):
            return 0
        if len(cut) < len(rows):
            rows, at, orders, reason = rows.take(cut), at.take(cut), orders.take(cut, axis=0), reason.take(cut)
        orders[:, LIVE] = 0.0
        self._table.put(at, orders)
        self._log.add_cut(rows, orders, reason)
        return len(rows)

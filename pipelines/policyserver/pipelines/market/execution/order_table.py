"""The live orders of n rows as one array, each row's oldest first."""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.orders import OrderKind
from policyserver.pipelines.market.rows import Rows

NUMBER, SYMBOL, KIND, SIDE, QUANTITY, PRICE, LEFT, FILLED, NOTIONAL, FEE_PAID, BARS_LEFT = range(11)
TRIGGERED, FORCED, LIVE, MATCHED, WAITED, REDUCE_ONLY = range(11, 17)
"""Columns of an order, float64: KIND is an `OrderKind`, SIDE 1 or -1; TRIGGERED, FORCED, LIVE, MATCHED and REDUCE_ONLY are 0 or 1; WAITED
counts the bars of its row since it was given, where a symbol's bar covers several of them."""

MARKET = int(OrderKind.MARKET)
"""What stands in the column KIND of a market order, as a plain number: to compare an array with an enum takes five times as long."""

N_COLUMNS = 17
"""Columns of an order."""


class OrderTable:
    """Room for some live orders in each of n rows."""

    def __init__(self, n_rows: int, n_slots: int) -> None:
        """Hold no order; `n_slots` live orders are room for a row."""
        self.n_slots = n_slots
        """Live orders that a row may have."""
        self.orders: FloatArray = np.zeros((n_rows, n_slots, N_COLUMNS))
        """Orders, float64 (n, slots, 16)."""
        self.has_reduce_only = False
        """Whether there may be a live order that only reduces a position."""
        self._flat = self.orders.reshape(-1, N_COLUMNS)
        self.count: IntArray = np.zeros(n_rows, dtype=np.int64)
        """Orders of each row, which are in its first slots, int64 (n,); to be read alone."""
        self._longest: int | None = 0

    @property
    def longest(self) -> int:
        """Orders of the row that has most."""
        if self._longest is None:
            self._longest = int(np.maximum.reduce(self.count))
        return self._longest

    def of(self, rows: IntArray) -> FloatArray:
        """Return a copy of the orders of rows in the slots that are in use, at least one: float64 (m, slots, 16)."""
        return self.orders[rows, : max(1, self.longest)]

    def places(self, rows: IntArray, slots: IntArray | int) -> IntArray:
        """Return where one order each of m different rows is, int64 (m,)."""
        return rows * self.n_slots + slots

    def take(self, places: IntArray) -> FloatArray:
        """Return a copy of the orders at some places, float64 (m, 16)."""
        return self._flat.take(places, axis=0)

    def put(self, places: IntArray, orders: FloatArray) -> None:
        """Put orders, float64 (m, 16), at some places."""
        self._flat[places] = orders

    def clear(self, rows: Rows) -> None:
        """Forget all orders of the rows."""
        if self.longest:
            self.orders[rows, :, LIVE] = 0.0
            self.forget(rows)

    def forget(self, rows: Rows) -> None:
        """Forget all orders of rows of which none is live any more."""
        self.count[rows] = 0
        self._longest = None

    def append(self, rows: IntArray, orders: FloatArray) -> None:
        """Add one order each, float64 (m, 16), to m different rows that have room."""
        if self.longest:
            count = self.count.take(rows)
            self.put(self.places(rows, count), orders)
            self.count[rows] = count + 1
            self._longest = None
        elif len(rows):
            self.put(self.places(rows, 0), orders)
            self.count[rows] = self._longest = 1

    def drop_dead(self, rows: IntArray) -> None:
        """Close the gaps that orders which are no longer live leave behind in the rows."""
        live = self.of(rows)[:, :, LIVE] > 0
        places, slots = live.nonzero()
        count = np.add.reduce(live, axis=1, dtype=np.int64)
        closed_up = np.add.accumulate(live, axis=1, dtype=np.int64)[places, slots] - 1
        gaps = (closed_up != slots).nonzero()[0]
        if len(gaps):
            first = rows.take(places.take(gaps)) * self.n_slots
            moved, slots = self._flat.take(first + slots.take(gaps), axis=0), slots.take(gaps)
            self._flat[first + slots, LIVE] = 0.0
            self._flat[first + closed_up.take(gaps)] = moved
        self.count[rows] = count
        self._longest = None

"""Why new orders are refused: what they ask for, and what would be held if all live orders filled."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.accounts import Accounts, total_of
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.filling import EXCESS
from policyserver.pipelines.market.execution.order_table import (
    LEFT,
    LIVE,
    PRICE,
    QUANTITY,
    REDUCE_ONLY,
    SIDE,
    SYMBOL,
    OrderTable,
)
from policyserver.pipelines.market.instruments import Instruments
from policyserver.pipelines.market.orders import KIND_FACTS, OrderRequests, Reason

_DUST = 1e-12


class OrderChecks:
    """Looks at orders before they are taken."""

    def __init__(self, accounts: Accounts, instruments: Instruments, leverage: float) -> None:
        """Look at `accounts`, whose gross exposure is to be at most `leverage` times the equity."""
        self._accounts = accounts
        self._instruments = instruments
        self._leverage = leverage

    def reasons(
        self, requests: OrderRequests, orders: FloatArray, table: OrderTable, replaced: IntArray | None, *, has_forced: bool
    ) -> IntArray:
        """Return why each order is refused, a `Reason`, int64 (m,): the first that holds, 0 for none.

        Args:
            requests: What was asked for.
            orders: The orders that they would become, float64 (m, columns).
            table: The live orders.
            replaced: Slots of the orders that they replace, which are left apart; none: they replace none.
            has_forced: Whether a margin call may have given an order.
        """
        rows, symbol, kind, quantity = requests.rows, requests.symbol, requests.kind, orders[:, QUANTITY]
        reason = np.zeros(len(rows), dtype=np.int64)
        _first(reason, quantity <= 0, Reason.QUANTITY)
        if np.count_nonzero(kind):  # others than market orders
            price = orders[:, PRICE]
            _first(reason, KIND_FACTS.has_price[kind] & ~(np.isfinite(price) & (price > 0)), Reason.PRICE)
        if has_forced:
            _first(reason, self._accounts.called[rows], Reason.MARGIN_CALL)
        if table.longest >= table.n_slots:
            live = table.count[rows] - (0 if replaced is None else 1)
            _first(reason, live >= table.n_slots, Reason.TOO_MANY)
        may_open = None
        if requests.reduce_only is not None:
            may_open = ~requests.reduce_only
            held = self._accounts.position.take(self._accounts.cells(rows, symbol))
            _first(reason, ~may_open & (orders[:, SIDE] * held >= 0), Reason.REDUCE_ONLY)
        if self._leverage < math.inf or self._instruments.bans_shorts:
            self._check_projection(reason, rows, symbol, orders[:, SIDE], quantity, table, replaced, may_open)
        return reason

    def _check_projection(
        self,
        reason: IntArray,
        rows: IntArray,
        symbol: IntArray,
        side: FloatArray,
        quantity: FloatArray,
        table: OrderTable,
        replaced: IntArray | None,
        may_open: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Refuse what would sell short where that isn't allowed, or what the equity doesn't carry if all live orders filled.

        Orders that only reduce a position are left out; `may_open`: which of the new ones are others, None for all.
        """
        accounts = self._accounts
        position, price, each = accounts.position.take(rows, axis=0), accounts.price.take(rows, axis=0), np.arange(len(rows))
        equity = accounts.cash.take(rows) + total_of(position * price)
        if table.longest:
            orders = table.of(rows)
            left = orders[:, :, SIDE] * orders[:, :, LEFT] * (orders[:, :, LIVE] > 0)
            if replaced is not None:
                left[each, replaced] = 0.0
            if table.has_reduce_only:
                left *= orders[:, :, REDUCE_ONLY] == 0
            for slot in range(orders.shape[1]):
                position[each, orders[:, slot, SYMBOL].astype(np.int64)] += left[:, slot]
        before = position[each, symbol]
        position[each, symbol] = after = before + side * quantity
        if self._instruments.bans_shorts:
            short = ~self._instruments.short_allowed[rows, symbol] & (side < 0) & (after < -_DUST * quantity)
            _first(reason, short if may_open is None else short & may_open, Reason.SHORT)
        if self._leverage < math.inf:
            exceeds = total_of(np.abs(position) * price) > self._leverage * equity * (1 + EXCESS)
            if may_open is not None:
                exceeds &= may_open
            if np.count_nonzero(exceeds):
                _first(reason, (np.abs(after) > np.abs(before)) & exceeds, Reason.MARGIN)


def _first(reason: IntArray, fails: npt.NDArray[np.bool_], of: Reason) -> None:
    """Give a reason to those that fail and have none yet."""
    if np.count_nonzero(fails):
        reason[fails & (reason == 0)] = int(of)

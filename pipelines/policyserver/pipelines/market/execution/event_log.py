"""What a broker tells of a step, gathered as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.order_table import (
    KIND,
    LEFT,
    MARKET,
    N_COLUMNS,
    NUMBER,
    PRICE,
    QUANTITY,
    REDUCE_ONLY,
    SIDE,
    SYMBOL,
)
from policyserver.pipelines.market.orders import Fills, OrderEvents, Reason, State

_NO_FILLS = Fills(*(np.zeros(0, dtype=np.int64),) * 3, *(np.zeros(0),) * 4)


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """Events of one kind, as they were added."""

    rows: IntArray
    orders: FloatArray
    state: IntArray
    reason: IntArray
    in_bar: bool


@dataclass(frozen=True, slots=True, eq=False)
class UntoldEvents:
    """Order events as they were added: to make columns of them costs something, and is only done where they are read."""

    parts: Sequence[_Events]

    def unfilled_rows(self) -> IntArray:
        """Return the rows of which an order ended with more than a small part unfilled, though its trader still wanted it."""
        return np.concatenate([part.rows[self._comes_to_nothing(part)] for part in self.parts])

    @staticmethod
    def _comes_to_nothing(part: _Events) -> npt.NDArray[np.bool_]:
        ends = (part.state == _EXPIRED) | ((part.state == _CANCELLED) & ~np.isin(part.reason, _WANTED))
        comes_to_nothing: npt.NDArray[np.bool_] = ends & (part.orders[:, LEFT] > SMALL_CUT * part.orders[:, QUANTITY])
        return comes_to_nothing

    def told(self) -> OrderEvents:
        """Return them as columns."""
        parts = self.parts or [_NO_EVENT]
        rows, orders, state, reason = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "orders", "state", "reason")
        )
        in_bar = np.repeat([part.in_bar for part in parts], [len(part.rows) for part in parts])
        number, symbol, kind = (orders[:, column].astype(np.int64) for column in (NUMBER, SYMBOL, KIND))
        signed = orders[:, SIDE] * orders[:, QUANTITY]
        reduce_only = orders[:, REDUCE_ONLY] > 0
        return OrderEvents(rows, symbol, number, kind, signed, orders[:, LEFT], orders[:, PRICE], reduce_only, state, reason, in_bar)


_NOTHING = UntoldEvents(())
_MARGIN = int(Reason.MARGIN)
_FILLED, _PARTLY_FILLED = int(State.FILLED), int(State.PARTLY_FILLED)
_CANCELLED, _EXPIRED = int(State.CANCELLED), int(State.EXPIRED)
_WANTED = [int(reason) for reason in (Reason.TRADER, Reason.REPLACED, Reason.REDUCE_ONLY)]
"""Reasons of orders that are cancelled and whose trader wants nothing of them any more."""
SMALL_CUT = 0.02
"""Part of a market order that its costs may take without a word: an order for the whole equity leaves nothing to pay them with."""


class EventLog:
    """Fills and order events since they were last taken."""

    def __init__(self) -> None:
        """Start empty."""
        self.with_market_orders = False
        """Whether it is told, too, that a market order was accepted or filled, which each order's fill tells already."""
        self.in_bar = False
        """Whether a bar has begun since events were last taken: what is added then is of that bar."""
        self._fills: list[Fills] = []
        self._events: list[_Events] = []

    def add_fills(self, fills: Fills) -> None:
        """Add fills."""
        self._fills.append(fills)

    def add(self, rows: IntArray, orders: FloatArray, state: State | IntArray, reason: Reason | IntArray = Reason.NONE) -> None:
        """Add what became of orders, float64 (m, columns) as in an `OrderTable`; the log keeps the arrays."""
        if count := len(rows):
            states = state if isinstance(state, np.ndarray) else np.full(count, int(state))
            reasons = reason if isinstance(reason, np.ndarray) else np.full(count, int(reason))
            self._events.append(_Events(rows, orders, states, reasons, self.in_bar))

    def add_usual(self, rows: IntArray, orders: FloatArray, state: State) -> None:
        """Add that orders were accepted, or filled, which is partly so where some is left; market orders only `with_market_orders`."""
        if not self.with_market_orders:
            told = orders[:, KIND].nonzero()[0]
            if not len(told):
                return
            if len(told) < len(rows):
                rows, orders = rows[told], orders[told]
        if state is State.FILLED:
            self.add(rows, orders, np.where(orders[:, LEFT] > 0, _PARTLY_FILLED, _FILLED))
        else:
            self.add(rows, orders, state)

    def add_cut(self, rows: IntArray, orders: FloatArray, reason: IntArray) -> None:
        """Add that what is left of filled orders is cancelled; what the costs cut from market orders only `with_market_orders`."""
        if not self.with_market_orders:
            told = orders[:, LEFT] > SMALL_CUT * orders[:, QUANTITY]
            told |= orders[:, KIND] != MARKET
            told |= reason != _MARGIN
            if not np.count_nonzero(told):
                return
            rows, orders, reason = rows[told], orders[told], reason[told]
        self.add(rows, orders, State.CANCELLED, reason)

    def take_fills(self) -> Fills:
        """Return the fills and forget them."""
        if not self._fills:
            return _NO_FILLS
        taken, self._fills = self._fills, []
        if len(taken) <= 1:
            return taken[0]
        return Fills(*(np.concatenate([getattr(part, name) for part in taken]) for name in Fills.__slots__))

    def take_events(self) -> UntoldEvents:
        """Return the order events and forget them."""
        self.in_bar = False
        if not self._events:
            return _NOTHING
        taken, self._events = self._events, []
        return UntoldEvents(taken)


_NO_EVENT = _Events(np.zeros(0, dtype=np.int64), np.zeros((0, N_COLUMNS)), *(np.zeros(0, dtype=np.int64),) * 2, in_bar=False)

"""Orders: their kinds, states and reasons, and what is told of them.

    submitted -> rejected
    submitted -> accepted -> partly filled -> filled
                     |             |
                     +------+------+--> cancelled | expired

An order that is decided at the close of a bar is live from then on, and can fill from the next bar on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray


class OrderKind(IntEnum):
    """When an order fills."""

    MARKET = 0
    """At the open of the next bar; what the volume leaves over, at the opens after it."""
    LIMIT = 1
    """At its price or better."""
    STOP = 2
    """As a market order, once the price has reached its own."""
    ON_OPEN = 3
    """At the open of the next bar alone."""
    ON_CLOSE = 4
    """At the close of the next bar alone."""


class _Kind(NamedTuple):
    """What makes a kind of orders."""

    waits_for: Literal["open", "close", "better", "worse"]
    """What it fills at: an open, a close, or a price of its own: the market's is at least as good as that, or at least as bad."""
    is_limit: bool = False
    """It fills at its own price or better, rather than as a market order from when its price is reached on."""
    for_one_bar: bool = False
    """It is over with the next bar."""


_KINDS = {
    OrderKind.MARKET: _Kind("open"),
    OrderKind.LIMIT: _Kind("better", is_limit=True),
    OrderKind.STOP: _Kind("worse"),
    OrderKind.ON_OPEN: _Kind("open", for_one_bar=True),
    OrderKind.ON_CLOSE: _Kind("close", for_one_bar=True),
}
"""All that the broker has to know of a kind."""


class KindFacts(NamedTuple):
    """What is true of which kinds of orders: of each fact bool (kinds,), by the kinds' numbers."""

    has_price: npt.NDArray[np.bool_]
    """It has a price of its own."""
    waits_for_better: npt.NDArray[np.bool_]
    """It waits until the market's price is at least as good as its own, rather than at least as bad."""
    is_limit: npt.NDArray[np.bool_]
    """It fills at its own price or better."""
    is_trigger: npt.NDArray[np.bool_]
    """It is a market order from when its price is reached on."""
    for_one_bar: npt.NDArray[np.bool_]
    """It is over with the next bar."""
    at_open: npt.NDArray[np.bool_]
    """It fills at an open, whatever the price."""
    at_close: npt.NDArray[np.bool_]
    """It fills at a close, whatever the price."""


def _where(fact: Callable[[_Kind], bool]) -> npt.NDArray[np.bool_]:
    return np.array([fact(_KINDS[OrderKind(number)]) for number in range(len(OrderKind))])


KIND_FACTS = KindFacts(
    has_price=_where(lambda kind: kind.waits_for in ("better", "worse")),
    waits_for_better=_where(lambda kind: kind.waits_for == "better"),
    is_limit=_where(lambda kind: kind.is_limit),
    is_trigger=_where(lambda kind: kind.waits_for in ("better", "worse") and not kind.is_limit),
    for_one_bar=_where(lambda kind: kind.for_one_bar),
    at_open=_where(lambda kind: kind.waits_for == "open"),
    at_close=_where(lambda kind: kind.waits_for == "close"),
)


class State(IntEnum):
    """Where an order is in its life."""

    ACCEPTED = 0
    """Submitted, and live from then on."""
    REJECTED = 1
    """Submitted, or refused before; never live."""
    PARTLY_FILLED = 2
    FILLED = 3
    CANCELLED = 4
    EXPIRED = 5


class Reason(IntEnum):
    """Why an order was rejected or cancelled."""

    NONE = 0
    QUANTITY = 1
    """It is not finite, or nothing is left of it on the instrument's grid."""
    PRICE = 2
    """It is not finite, or not above 0 on the instrument's grid."""
    MARGIN_CALL = 3
    """The account has been called."""
    TOO_MANY = 4
    """As many orders are live as may be."""
    SHORT = 5
    """The instrument can't be sold short."""
    MARGIN = 6
    """The equity doesn't carry it."""
    TRADER = 7
    """The trader cancelled it."""
    REPLACED = 8
    """The trader put another in its place."""
    REDUCE_ONLY = 9
    """It may only make a position smaller, and nothing is held that it could reduce."""
    RISK = 10
    """The first limit on risk of the rules refused it, or cut it when it was filled; the numbers that follow are the other limits."""


@dataclass(frozen=True, slots=True, eq=False)
class OrderRequests:
    """One order each of m different rows, as columns."""

    rows: IntArray
    """Rows, int64 (m,), no row twice."""
    symbol: IntArray
    """Numbers of the symbols, int64 (m,)."""
    kind: IntArray
    """`OrderKind`s, int64 (m,)."""
    quantity: FloatArray
    """Units to buy (positive) or to sell (negative), float64 (m,)."""
    price: FloatArray
    """Limit or stop, float64 (m,); not looked at in other kinds."""
    good_for: IntArray
    """Bars after which it expires, int64 (m,), at least 1; `GOOD_TILL_CANCELLED` never."""
    reduce_only: npt.NDArray[np.bool_] | None = None
    """Whether it may only make the position smaller, bool (m,); None: none of them.

    Such an order never opens or turns a position: a fill is cut to what is held then, and the order is cancelled with the position. It is
    refused where nothing is held that it could reduce, and never as a short or for the leverage.
    """

    def some(self, which: npt.NDArray[np.bool_]) -> OrderRequests:
        """Return those that are chosen, bool (m,)."""
        reduce_only = None if self.reduce_only is None else self.reduce_only[which]
        rows, symbol, kind, good_for = (column[which] for column in (self.rows, self.symbol, self.kind, self.good_for))
        return OrderRequests(rows, symbol, kind, self.quantity[which], self.price[which], good_for, reduce_only)


@dataclass(frozen=True, slots=True, eq=False)
class Withdrawal:
    """What waits to be filled at any price, of some symbols of m different rows, is to be cancelled; see `LiveOrders.waiting`."""

    rows: IntArray
    """Rows, int64 (m,), no row twice."""
    symbols: npt.NDArray[np.bool_]
    """Which symbols of each, bool (m, K)."""


class LiveOrders(Protocol):
    """The live orders of the rows of a block, to be read alone."""

    def waiting(self, rows: IntArray) -> FloatArray | None:
        """Return the units that live orders of m rows are still to buy (positive) or sell at any price, float64 (m, K); None: none is.

        Such an order has no price, or is a stop whose price was reached: it waits for a bar of its symbol, or for volume. What a margin
        call has ordered is left out.
        """

    def committed(self, rows: IntArray) -> FloatArray | None:
        """Return what of `waiting` can't be withdrawn, float64 (m, K); None: nothing is.

        The bar of such an order has begun and isn't over: it may have been filled, which is known at the bar's end.
        """


GOOD_TILL_CANCELLED = 1 << 40
"""Bars of an order that doesn't expire."""


@dataclass(frozen=True, slots=True, eq=False)
class Fills:
    """Fills as columns, in the order in which each row's happened."""

    rows: IntArray
    """Rows, int64 (f,)."""
    symbol: IntArray
    """Numbers of the symbols, int64 (f,)."""
    number: IntArray
    """Numbers of the orders in their rows, int64 (f,)."""
    quantity: FloatArray
    """Units bought (positive) or sold (negative), float64 (f,)."""
    reference_price: FloatArray
    """Price that the market had, float64 (f,)."""
    price: FloatArray
    """Price paid or received, float64 (f,)."""
    fee: FloatArray
    """Fee, in cash, float64 (f,)."""


@dataclass(frozen=True, slots=True, eq=False)
class OrderEvents:
    """What became of orders, as columns, in the order in which each row's happened."""

    rows: IntArray
    """Rows, int64 (e,)."""
    symbol: IntArray
    """Numbers of the symbols, int64 (e,)."""
    number: IntArray
    """Numbers of the orders in their rows, int64 (e,)."""
    kind: IntArray
    """`OrderKind`s, int64 (e,)."""
    quantity: FloatArray
    """Units that were to be bought (positive) or sold (negative), on the instrument's grid, float64 (e,)."""
    left: FloatArray
    """Units that are not filled, float64 (e,)."""
    price: FloatArray
    """Limit or stop, float64 (e,); meaningless in other kinds."""
    reduce_only: npt.NDArray[np.bool_]
    """Whether they may only make the position smaller, bool (e,)."""
    state: IntArray
    """`State`s, int64 (e,)."""
    reason: IntArray
    """`Reason`s, int64 (e,); `Reason.RISK` + i is the limit of place i in the rules."""
    in_bar: npt.NDArray[np.bool_]
    """Whether it happened in the row's last bar rather than when the orders before it were given, bool (e,)."""

"""Which orders a bar reaches, in each of its phases, and at which price of the market."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.execution.order_table import KIND, LIVE, MATCHED, PRICE, SIDE, SYMBOL, TRIGGERED, WAITED
from policyserver.pipelines.market.orders import KIND_FACTS

Phase = Literal["open", "within", "close"]

PHASES: tuple[Phase, ...] = ("open", "within", "close")
"""The phases of a bar, in their order."""


def orders_that_see(orders: FloatArray, present: npt.NDArray[np.bool_], covers: IntArray | None) -> npt.NDArray[np.bool_]:
    """Return which orders a bar is for: those of a symbol that has one, which had not begun when they were given; bool (m, slots).

    Args:
        orders: Float64 (m, slots, columns).
        present: Which symbols have a bar, bool (m, K).
        covers: How many bars of its row each symbol's bar covers, int64 (m, K); none: 1 each.
    """
    symbol = orders[:, :, SYMBOL].astype(np.int64)
    sees: npt.NDArray[np.bool_] = np.take_along_axis(present, symbol, axis=1)
    return sees if covers is None else sees & (orders[:, :, WAITED] >= np.take_along_axis(covers, symbol, axis=1))


def _of(symbol: IntArray | None, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what values (m, K) are for orders of symbols (m, slots); none: there is one symbol, and its column stands for all slots."""
    return values if symbol is None else np.take_along_axis(values, symbol, axis=1)


def _wide(symbol: IntArray | None, values: FloatArray, orders: FloatArray) -> FloatArray:
    return np.broadcast_to(values, orders.shape) if symbol is None else np.take_along_axis(values, symbol, axis=1)


def traded_side(orders: FloatArray, half_spread: FloatArray) -> FloatArray:
    """Return what a price is multiplied by to be the one that each order (m, slots, columns) waits for, float64 (m, slots).

    A bar's prices lie between bid and ask: a limit to buy waits for the ask, one to sell for the bid, and a stop for the price itself.
    `half_spread`: distance of the two from a price, as a fraction of it, float64 (m, K).
    """
    columns = orders.transpose(2, 0, 1)
    symbol = columns[SYMBOL].astype(np.int64) if half_spread.shape[1] > 1 else None
    side: FloatArray = 1.0 + KIND_FACTS.is_limit.take(columns[KIND].astype(np.int64)) * columns[SIDE] * _of(symbol, half_spread)
    return side


def matches(
    orders: FloatArray, bar: BarRows, sees: npt.NDArray[np.bool_] | None, phase: Phase, traded_side: FloatArray | None = None
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which orders are matched in a phase, and the market's price at which they are.

    Args:
        orders: Float64 (m, slots, columns).
        bar: The bars of the m rows.
        sees: Which orders the bars are for, bool (m, slots); None: all.
        phase: The phase.
        traded_side: See the function, float64 (m, slots); None: there is no spread.

    Returns:
        Bool and float64, (m, slots) each; the price is meaningless where an order isn't matched.
    """
    columns = orders.transpose(2, 0, 1)
    kind, price, waits = columns[KIND].astype(np.int64), columns[PRICE], (columns[LIVE] > 0) & (columns[MATCHED] == 0)
    symbol = columns[SYMBOL].astype(np.int64) if bar.columns.shape[1] > 1 else None
    if sees is not None:
        waits &= sees
    if phase == "close":
        return waits & KIND_FACTS.at_close.take(kind), _wide(symbol, bar.close, price)
    buys, triggered = columns[SIDE] > 0, columns[TRIGGERED] > 0
    low = lowest = _of(symbol, bar.open if phase == "open" else bar.low)
    high = highest = low if phase == "open" else _of(symbol, bar.high)
    if traded_side is not None:
        low, high = lowest * traded_side, highest * traded_side
    better = buys == KIND_FACTS.waits_for_better.take(kind)
    reached = np.where(better, low <= price, high >= price) & KIND_FACTS.has_price.take(kind) & ~triggered
    if phase == "within":
        return waits & reached, price if traded_side is None else np.minimum(np.maximum(price / traded_side, lowest), highest)
    return waits & (reached | KIND_FACTS.at_open.take(kind) | triggered), _wide(symbol, bar.open, price)

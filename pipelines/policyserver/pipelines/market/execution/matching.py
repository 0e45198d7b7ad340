"""Which orders a bar reaches, in each of its phases, and at which price of the market."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.execution.order_table import KIND, LIVE, MATCHED, PRICE, SIDE, SYMBOL, TRIGGERED
from policyserver.pipelines.market.orders import KIND_FACTS

Phase = Literal["open", "within", "close"]

PHASES: tuple[Phase, ...] = ("open", "within", "close")
"""The phases of a bar, in their order."""


def _of(symbol: IntArray | None, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what values (m, K) are for orders of symbols (m, slots); none: there is one symbol, and its column stands for all slots."""
    return values if symbol is None else np.take_along_axis(values, symbol, axis=1)


def _wide(symbol: IntArray | None, values: FloatArray, orders: FloatArray) -> FloatArray:
    return np.broadcast_to(values, orders.shape) if symbol is None else np.take_along_axis(values, symbol, axis=1)


def matches(
    orders: FloatArray, bar: BarRows, present: npt.NDArray[np.bool_] | None, phase: Phase, half_spread: FloatArray | None = None
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which orders are matched in a phase, and the market's price at which they are.

    A bar's prices lie between bid and ask: a limit to buy waits for the ask, one to sell for the bid.

    Args:
        orders: Float64 (m, slots, columns).
        bar: The bars of the m rows.
        present: Which symbols have a bar; None: all.
        phase: The phase.
        half_spread: Distance of the bid, and of the ask, from a price, as a fraction of it, float64 (m, K); None: 0.

    Returns:
        Bool and float64, (m, slots) each; the price is meaningless where an order isn't matched.
    """
    columns = orders.transpose(2, 0, 1)
    kind, price, waits = columns[KIND].astype(np.int64), columns[PRICE], (columns[LIVE] > 0) & (columns[MATCHED] == 0)
    symbol = columns[SYMBOL].astype(np.int64) if bar.columns.shape[1] > 1 else None
    if present is not None:
        waits &= _of(symbol, present)
    if phase == "close":
        return waits & KIND_FACTS.at_close.take(kind), _wide(symbol, bar.close, price)
    buys, triggered = columns[SIDE] > 0, columns[TRIGGERED] > 0
    lowest, highest = (_of(symbol, price) for price in ((bar.open, bar.open) if phase == "open" else (bar.low, bar.high)))
    low, high, side = lowest, highest, None
    if half_spread is not None:
        side = 1.0 + np.where(KIND_FACTS.is_limit.take(kind), columns[SIDE], 0.0) * _of(symbol, half_spread)
        low, high = lowest * side, highest * side
    better = buys == KIND_FACTS.waits_for_better.take(kind)
    reached = np.where(better, low <= price, high >= price) & KIND_FACTS.has_price.take(kind) & ~triggered
    if phase == "within":
        return waits & reached, price if side is None else np.where(side == 1.0, price, np.clip(price / side, lowest, highest))
    return waits & (reached | KIND_FACTS.at_open.take(kind) | triggered), _wide(symbol, bar.open, price)

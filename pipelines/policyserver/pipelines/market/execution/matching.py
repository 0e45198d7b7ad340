"""Which orders a bar reaches, in each of its phases, and at which price of the market."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import BarRows, FloatArray
from policyserver.pipelines.market.execution.order_table import (
    KIND,
    LIMIT,
    LIVE,
    MARKET,
    MATCHED,
    ON_CLOSE,
    ON_OPEN,
    PRICE,
    SIDE,
    STOP,
    SYMBOL,
    TRIGGERED,
)

Phase = Literal["open", "within", "close"]

PHASES: tuple[Phase, ...] = ("open", "within", "close")
"""The phases of a bar, in their order."""


def matches(
    orders: FloatArray, bar: BarRows, present: npt.NDArray[np.bool_] | None, phase: Phase
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which orders are matched in a phase, and the market's price at which they are.

    Args:
        orders: Float64 (m, slots, columns).
        bar: The bars of the m rows.
        present: Which symbols have a bar; None: all.
        phase: The phase.

    Returns:
        Bool and float64, (m, slots) each; the price is meaningless where an order isn't matched.
    """
    each = np.arange(len(orders))[:, None]
    symbol = orders[:, :, SYMBOL].astype(np.int64)
    waits = (orders[:, :, LIVE] > 0) & (orders[:, :, MATCHED] == 0)
    if present is not None:
        waits &= present[each, symbol]
    kind = orders[:, :, KIND]
    if phase == "close":
        return waits & (kind == ON_CLOSE), bar.close[each, symbol]
    price, buys = orders[:, :, PRICE], orders[:, :, SIDE] > 0
    limit, stop = kind == LIMIT, (kind == STOP) & (orders[:, :, TRIGGERED] == 0)
    low, high = (bar.open, bar.open) if phase == "open" else (bar.low, bar.high)
    low, high = low[each, symbol], high[each, symbol]
    reached = np.where(buys == limit, low <= price, high >= price) & (limit | stop)
    if phase == "within":
        return waits & reached, price
    at_open = (kind == MARKET) | (kind == ON_OPEN) | ((kind == STOP) & ~stop)
    return waits & (reached | at_open), bar.open[each, symbol]

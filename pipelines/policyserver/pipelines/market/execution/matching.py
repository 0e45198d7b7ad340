"""Which orders a bar reaches, in each of its phases, and at which price of the market."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import BarRows, FloatArray
from policyserver.pipelines.market.execution.order_table import KIND, LIVE, MATCHED, PRICE, SIDE, SYMBOL, TRIGGERED
from policyserver.pipelines.market.orders import KIND_FACTS

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
    kind = orders[:, :, KIND].astype(np.int64)
    if phase == "close":
        return waits & KIND_FACTS.at_close[kind], bar.close[each, symbol]
    price, buys, triggered = orders[:, :, PRICE], orders[:, :, SIDE] > 0, orders[:, :, TRIGGERED] > 0
    low, high = (bar.open, bar.open) if phase == "open" else (bar.low, bar.high)
    low, high = low[each, symbol], high[each, symbol]
    reached = np.where(buys == KIND_FACTS.waits_for_better[kind], low <= price, high >= price) & KIND_FACTS.has_price[kind] & ~triggered
    if phase == "within":
        return waits & reached, price
    return waits & (reached | KIND_FACTS.at_open[kind] | triggered), bar.open[each, symbol]

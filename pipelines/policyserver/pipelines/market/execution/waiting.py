"""Orders that wait to be filled at any price: for a bar of their symbol, or for volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.order_table import FORCED, KIND, LEFT, LIVE, SIDE, SYMBOL, TRIGGERED, OrderTable
from policyserver.pipelines.market.orders import KIND_FACTS


def waits_at_any_price(orders: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which orders (m, slots, columns) are live, the trader's own, and fill whatever the price."""
    waits: npt.NDArray[np.bool_] = (orders[:, :, LIVE] > 0) & (orders[:, :, FORCED] == 0)
    waits &= ~KIND_FACTS.has_price.take(orders[:, :, KIND].astype(np.int64)) | (orders[:, :, TRIGGERED] > 0)
    return waits


def waiting_units(
    table: OrderTable, rows: IntArray, n_symbols: int, among: Callable[[IntArray, FloatArray], npt.NDArray[np.bool_]] | None = None
) -> FloatArray | None:
    """Return the units that wait in a table, see `LiveOrders.waiting`; `among` chooses of rows' orders, bool (m, slots)."""
    if not (table.longest and np.count_nonzero(table.count.take(rows))):
        return None
    orders = table.of(rows)
    waits = waits_at_any_price(orders)
    if among is not None:
        waits &= among(rows, orders)
    if not np.count_nonzero(waits):
        return None
    units, each = np.zeros((len(rows), n_symbols)), np.arange(len(rows))
    left = np.where(waits, orders[:, :, SIDE] * orders[:, :, LEFT], 0.0)
    for slot in range(orders.shape[1]):
        units[each, orders[:, slot, SYMBOL].astype(np.int64)] += left[:, slot]
    return units
